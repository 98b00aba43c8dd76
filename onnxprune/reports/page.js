// A click on a heading sorts its table, numbers by their value; a second click reverses the order.
for (const button of document.querySelectorAll('th button')) button.addEventListener('click', () => {
  const heading = button.parentElement, body = heading.closest('table').tBodies[0], at = heading.cellIndex;
  const up = heading.ariaSort !== 'ascending';
  for (const other of heading.parentElement.cells) other.ariaSort = null;
  heading.ariaSort = up ? 'ascending' : 'descending';
  const key = row => row.cells[at].dataset.value ?? row.cells[at].textContent;
  const order = (one, other) => {
    const x = key(one), y = key(other), difference = x - y;
    return (isNaN(difference) ? x.localeCompare(y, undefined, {numeric: true}) : difference) * (up ? 1 : -1);
  };
  body.append(...[...body.rows].sort(order));
});
// The field above a table keeps the rows that have all of its words.
for (const label of document.querySelectorAll('.filter')) {
  const field = label.querySelector('input'), count = label.querySelector('output');
  const rows = [...label.parentElement.querySelector('tbody').rows];
  label.hidden = false;
  field.addEventListener('input', () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  });
}
// Charts are drawn when they come into view, in the colors of the page, and again when those change.
const dark = matchMedia('(prefers-color-scheme: dark)'), touch = matchMedia('(pointer: coarse)').matches;
function draw(place) {
  const {data, layout} = JSON.parse(place.dataset.plot), style = getComputedStyle(document.documentElement);
  const [ink, ground, line] = ['--ink', '--ground', '--line'].map(name => style.getPropertyValue(name));
  const axis = {gridcolor: line, zeroline: false, linecolor: line, automargin: true, fixedrange: touch};
  if (!place.matches('.js-plotly-plot')) place.replaceChildren();
  Plotly.react(place, data, {
    ...layout,
    xaxis: {...axis, ...layout.xaxis},
    yaxis: {...axis, ...layout.yaxis},
    font: {color: ink, size: 12, family: 'system-ui, sans-serif'},
    paper_bgcolor: 'transparent',
    plot_bgcolor: 'transparent',
    hovermode: 'x unified',
    hoverdistance: -1,
    hoverlabel: {bgcolor: ground, bordercolor: line, font: {color: ink}, namelength: -1},
    legend: {orientation: 'h', y: 1, yanchor: 'bottom', x: 0, font: {size: 11}},
    margin: {l: 10, r: 14, t: 30, b: 10},
    dragmode: touch ? false : 'zoom',
  }, {
    responsive: true,
    displaylogo: false,
    displayModeBar: touch ? false : 'hover',
    modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'],
    toImageButtonOptions: {format: 'svg'},
  });
}
const seen = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    draw(target);
  }
}, {rootMargin: '400px'});
for (const place of document.querySelectorAll('.plot')) seen.observe(place);
dark.addEventListener('change', () => document.querySelectorAll('.js-plotly-plot').forEach(draw));
// Charts and pictures become as wide as the page.
for (const figure of document.querySelectorAll('.charts figure')) {
  const button = document.createElement('button');
  button.className = 'zoom';
  button.textContent = '⤢';
  button.ariaLabel = 'larger or smaller';
  button.addEventListener('click', () => {
    figure.classList.toggle('large');
    for (const place of figure.querySelectorAll('.js-plotly-plot')) Plotly.Plots.resize(place);
  });
  figure.prepend(button);
}
