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
// A chart shows the values nearest to the pointer.
const tip = document.createElement('div');
tip.className = 'tip';
tip.hidden = true;
document.body.append(tip);
for (const chart of document.querySelectorAll('svg[data-hover]')) {
  const spots = JSON.parse(chart.dataset.hover);
  const show = event => {
    const box = chart.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
    const near = spots.reduce((best, spot) => Math.abs(spot[0] - x) < Math.abs(best[0] - x) ? spot : best);
    tip.textContent = near[1];
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 10)}px`;
  };
  if (spots.length) for (const kind of ['pointermove', 'pointerdown']) chart.addEventListener(kind, show);
  chart.addEventListener('pointerleave', () => { tip.hidden = true; });
}
// Charts and pictures become as wide as the page.
for (const figure of document.querySelectorAll('.charts figure')) {
  const button = document.createElement('button');
  button.className = 'zoom';
  button.textContent = '⤢';
  button.ariaLabel = 'larger or smaller';
  button.addEventListener('click', () => figure.classList.toggle('large'));
  figure.prepend(button);
}
