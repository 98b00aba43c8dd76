#include "conv_tiles.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "cost_model.h"

namespace onnxprune {
namespace {

int64_t quotient_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// Narrower strips would be copied float by float.
constexpr int64_t kMinStrip = 4;

// Turns contiguous runs of floats into copies of the largest kind that fits; the last copy may overlap the one before.
class CopyLists {
 public:
  CopyLists(size_t lanes) : lanes_(static_cast<ptrdiff_t>(lanes)) {}

  // `count` floats that are `step` apart in the source and contiguous in the target.
  void add(ptrdiff_t source, ptrdiff_t target, ptrdiff_t count, ptrdiff_t step) {
    if (count_ > 0 && step == step_ && source == source_ + count_ * step && target == target_ + count_) {
      count_ += count;
      return;
    }
    flush();
    source_ = source;
    target_ = target;
    count_ = count;
    step_ = step;
  }

  const std::array<std::vector<Copy>, kCopyKinds>& finish() {
    flush();
    return lists_;
  }

  ptrdiff_t floats() const { return floats_; }

  // The contiguous targets of a finished list.
  const std::vector<ConvTiles::Run>& targets() const { return targets_; }

 private:
  void flush() {
    floats_ += count_;
    if (!targets_.empty() && targets_.back().target + static_cast<ptrdiff_t>(targets_.back().count) == target_) {
      targets_.back().count += static_cast<size_t>(count_);
    } else if (count_ > 0) {
      targets_.push_back({target_, static_cast<size_t>(count_)});
    }
    const std::pair<CopyKind, ptrdiff_t> kinds[] = {{kVectors, lanes_}, {kEights, 8}, {kFours, 4}, {kOnes, 1}};
    if (step_ == 2) {
      for (; count_ >= lanes_; count_ -= lanes_, source_ += 2 * lanes_, target_ += lanes_) {
        lists_[kEveryOther].push_back({source_, target_});
      }
    }
    for (const auto& [kind, size] : kinds) {
      if (size > count_ || count_ == 0 || (step_ != 1 && size > 1)) continue;
      for (ptrdiff_t i = 0; i < count_; i += size) {
        const ptrdiff_t at = std::min(i, count_ - size);
        lists_[kind].push_back({source_ + at * step_, target_ + at});
      }
      count_ = 0;
    }
  }

  ptrdiff_t lanes_;
  std::array<std::vector<Copy>, kCopyKinds> lists_;
  std::vector<ConvTiles::Run> targets_;
  ptrdiff_t source_ = 0;
  ptrdiff_t target_ = 0;
  ptrdiff_t count_ = 0;
  ptrdiff_t step_ = 1;
  ptrdiff_t floats_ = 0;
};

}  // namespace

ConvShape simplified(ConvShape shape) {
  std::vector<ConvAxis>& axes = shape.axes;
  while (axes.size() > 1 && axes.back().is_plain() && axes[axes.size() - 2].is_plain()) {
    const int64_t size = axes.back().input * axes[axes.size() - 2].input;
    axes.pop_back();
    axes.back().input = axes.back().output = size;
  }
  if (axes.size() == 1) axes.insert(axes.begin(), ConvAxis{1, 1, 1, 1, 1, 0});
  return shape;
}

Copies ConvTiles::CopyList::view() const {
  Copies view{copies.data(), {}};
  std::copy(std::begin(begin), std::end(begin), view.begin);
  return view;
}

// Columns [first_column, first_column + width) of some rows of an image's plane.
struct ConvTiles::Strip {
  int64_t image;
  int64_t plane;
  int64_t first_row;
  int64_t last_row;
  int64_t first_column;
};

class ConvTiles::Builder {
 public:
  Builder(const Kernels& kernels, const ConvShape& shape, size_t entries)
      : kernels_(kernels),
        shape_(shape),
        entries_(entries),
        lanes_(static_cast<int64_t>(kernels.lanes)),
        row_(shape.axes[shape.axes.size() - 2]),
        column_(shape.axes.back()),
        folds_(row_.output == 1 && row_.kernel == 1),
        planes_(shape.product(&ConvAxis::output, 2)),
        leading_taps_(shape.product(&ConvAxis::kernel, 2)) {}

  void build(ConvTiles& tiles) {
    cut_ = best_cut();
    tiles.layout_ = layout();
    const int64_t groups = quotient_up(strips_of(cut_), cut_.strips);
    const int64_t count = quotient_up(cut_.band_rows, cut_.tile_rows);
    std::map<std::vector<ptrdiff_t>, size_t> known;
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t i = 0; i < count; ++i) {
        add(tiles, known, group, cut_.band_rows * i / count, cut_.band_rows * (i + 1) / count);
      }
    }
  }

 private:
  // A plane of one row (folds_) is cut into pieces of `width` columns, which take the place of its rows.
  int64_t rows(int64_t width) const { return folds_ ? quotient_up(column_.output, width) : row_.output; }
  int64_t columns(int64_t width) const { return folds_ ? width : column_.output; }
  int64_t strips_of(const Cut& cut) const {
    return shape_.images * planes_ * cut.bands * quotient_up(columns(cut.width), cut.width);
  }
  int64_t slabs(const Cut& cut) const {
    return leading_taps_ * column_.kernel * (cut.shares_rows ? cut.phases : row_.kernel);
  }
  int64_t slab_vectors(const Cut& cut, int64_t rows) const {
    return (rows + (cut.shares_rows ? cut.halo : 0)) * cut.row_vectors;
  }

  Cut best_cut() const {
    Cut best{};
    best.cycles = std::numeric_limits<double>::infinity();
    for (int64_t width = std::max(kMinStrip, lanes_ / 4); width <= 4 * lanes_; width *= 2) {
      Cut cut{};
      cut.width = width;
      cut.strips = std::max<int64_t>(lanes_ / width, 1);
      cut.row_vectors = std::max<int64_t>(width / lanes_, 1);
      for (cut.bands = 1; cut.bands <= cut.strips; cut.bands *= 2) {
        cut.band_rows = quotient_up(rows(width), cut.bands);
        for (const bool shares_rows : {true, false}) {
          cut.shares_rows = shares_rows;
          cut.phases = std::min(row_.stride / std::gcd(row_.stride, row_.dilation), row_.kernel);
          cut.halo = (row_.kernel - 1) * row_.dilation / row_.stride;
          const auto most = static_cast<int64_t>(kernels_.max_vectors) / cut.row_vectors;
          for (int64_t wanted = 1; wanted <= std::min(most, cut.band_rows); ++wanted) {
            cut.tile_rows = quotient_up(cut.band_rows, quotient_up(cut.band_rows, wanted));
            cut.cycles = cycles(cut);
            if (cut.cycles < best.cycles) best = cut;
          }
        }
      }
    }
    return best;
  }

  TileWork work(const Cut& cut) const {
    const int64_t vectors = slabs(cut) * slab_vectors(cut, cut.tile_rows);
    const double copies = static_cast<double>(vectors * std::max<int64_t>(lanes_ / cut.width, 1));
    return {static_cast<size_t>(shape_.output_channels),
            entries_,
            static_cast<size_t>(shape_.input_channels),
            static_cast<size_t>(cut.tile_rows * cut.row_vectors),
            static_cast<size_t>(vectors),
            copies};
  }

  double cycles(const Cut& cut) const {
    const int64_t tiles = quotient_up(strips_of(cut), cut.strips) * quotient_up(cut.band_rows, cut.tile_rows);
    return static_cast<double>(tiles) * tile_cycles(kernels_, work(cut));
  }

  PanelLayout layout() const {
    PanelLayout layout;
    layout.channels = static_cast<size_t>(shape_.input_channels);
    layout.block_channels = block_channels(kernels_, work(cut_));
    const int64_t slab = slab_vectors(cut_, cut_.tile_rows) * lanes_;
    layout.channel_stride = static_cast<size_t>(slabs(cut_) * slab);
    for (int64_t leading = 0; leading < leading_taps_; ++leading) {
      for (int64_t row = 0; row < row_.kernel; ++row) {
        for (int64_t column = 0; column < column_.kernel; ++column) {
          const int64_t place = row * row_.dilation;
          const int64_t sharer = cut_.shares_rows ? phase_index(place % row_.stride) : row;
          const int64_t shift = cut_.shares_rows ? place / row_.stride : 0;
          const int64_t index =
              (leading * (cut_.shares_rows ? cut_.phases : row_.kernel) + sharer) * column_.kernel + column;
          layout.taps.push_back(static_cast<size_t>(index * slab + shift * cut_.row_vectors * lanes_));
        }
      }
    }
    return layout;
  }

  // The index of a phase of the stride, in the order in which rows of the convolution's kernel first have them.
  int64_t phase_index(int64_t phase) const {
    int64_t index = 0;
    while (index * row_.dilation % row_.stride != phase) ++index;
    return index;
  }

  Strip strip(int64_t index) const {
    const int64_t across = quotient_up(columns(cut_.width), cut_.width);
    const int64_t band = index / across % cut_.bands;
    const int64_t plane = index / across / cut_.bands;
    const int64_t first_row = band * cut_.band_rows;
    return {plane / planes_, plane % planes_, first_row, std::min(first_row + cut_.band_rows, rows(cut_.width)),
            index % across * cut_.width};
  }

  // Input rows before those of the plane that a tap of the leading axes reads; -1 where that plane is padding.
  int64_t leading_rows(int64_t plane, int64_t tap) const {
    int64_t offset = 0;
    int64_t scale = 1;
    for (size_t axis = shape_.axes.size() - 2; axis-- > 0;) {
      const ConvAxis& leading = shape_.axes[axis];
      const int64_t place = leading.place(plane % leading.output, tap % leading.kernel);
      if (place < 0 || place >= leading.input) return -1;
      offset += place * scale;
      scale *= leading.input;
      plane /= leading.output;
      tap /= leading.kernel;
    }
    return offset * row_.input;
  }

  // Adds the tile of rows [first, last) of a group of strips.
  void add(ConvTiles& tiles, std::map<std::vector<ptrdiff_t>, size_t>& known, int64_t group, int64_t first,
           int64_t last) const {
    CopyLists loads(kernels_.lanes);
    CopyLists stores(kernels_.lanes);
    const int64_t sharers = cut_.shares_rows ? cut_.phases : row_.kernel;
    const int64_t panel_rows = last - first + (cut_.shares_rows ? cut_.halo : 0);
    const int64_t pitch = cut_.row_vectors * lanes_;
    const int64_t slab = slab_vectors(cut_, cut_.tile_rows) * lanes_;
    const int64_t total = strips_of(cut_);
    std::vector<Strip> strips;
    for (int64_t i = group * cut_.strips; i < std::min((group + 1) * cut_.strips, total); ++i)
      strips.push_back(strip(i));
    for (int64_t index = 0; index < slabs(cut_); ++index) {
      const int64_t column_tap = index % column_.kernel;
      const int64_t sharer = index / column_.kernel % sharers;
      const int64_t leading_tap = index / column_.kernel / sharers;
      for (int64_t row = 0; row < panel_rows; ++row) {
        for (size_t i = 0; i < strips.size(); ++i) {
          const int64_t target = index * slab + row * pitch + static_cast<int64_t>(i) * cut_.width;
          load(strips[i], leading_tap, sharer, column_tap, first + row, target, loads);
        }
      }
    }
    for (int64_t row = first; row < last; ++row) {
      for (size_t i = 0; i < strips.size(); ++i) {
        store(strips[i], row, (row - first) * pitch + static_cast<int64_t>(i) * cut_.width, stores);
      }
    }
    Program program{make_list(loads), make_list(stores), stores.targets(), false, 0, 0};
    program.holes = loads.floats() != slabs(cut_) * panel_rows * pitch;
    if (program.stores.copies.empty()) return;
    Tile tile{0, static_cast<size_t>((last - first) * cut_.row_vectors), 0, 0};
    tile.input = rebase(program.loads.copies, &Copy::source);
    tile.output = rebase(program.stores.copies, &Copy::target);
    for (Run& run : program.stored) run.target -= tile.output;
    program.straight_store = straight(program.stores, stores.targets());
    program.straight_load = straight(program.loads, loads.targets());
    std::vector<ptrdiff_t> key;
    for (const CopyList* list : {&program.loads, &program.stores}) {
      key.insert(key.end(), std::begin(list->begin), std::end(list->begin));
      for (const Copy& copy : list->copies) key.insert(key.end(), {copy.source, copy.target});
    }
    const auto [place, is_new] = known.emplace(std::move(key), tiles.programs_.size());
    if (is_new) tiles.programs_.push_back(std::move(program));
    tile.program = place->second;
    tiles.tiles_.push_back(tile);
  }

  // Loads the input that output row `row` of a strip needs, for one of the shifted copies.
  void load(const Strip& strip, int64_t leading_tap, int64_t sharer, int64_t column_tap, int64_t row, int64_t target,
            CopyLists& loads) const {
    const int64_t leading = leading_rows(strip.plane, leading_tap);
    if (leading < 0) return;
    const int64_t at = strip.first_row + row;
    int64_t input_row = 0;
    int64_t first_column = strip.first_column;
    if (folds_) {
      input_row = row_.place(0, 0);
      first_column = at * cut_.width;
    } else {
      input_row = at * row_.stride - row_.begin +
                  (cut_.shares_rows ? sharer * row_.dilation % row_.stride : sharer * row_.dilation);
    }
    if (input_row < 0 || input_row >= row_.input) return;
    const int64_t place = column_.place(first_column, column_tap);
    const int64_t from = place < 0 ? quotient_up(-place, column_.stride) : 0;
    const int64_t inside = place >= column_.input ? 0 : (column_.input - 1 - place) / column_.stride + 1;
    const int64_t to = std::min({cut_.width, column_.output - first_column, inside});
    if (from >= to) return;
    const int64_t base = strip.image * shape_.input_image.value_or(shape_.input_channels * shape_.input_pixels());
    const int64_t source = base + (leading + input_row) * column_.input + place + from * column_.stride;
    loads.add(source, target + from, to - from, column_.stride);
  }

  void store(const Strip& strip, int64_t row, int64_t source, CopyLists& stores) const {
    const int64_t at = strip.first_row + row;
    if (at >= strip.last_row) return;
    const int64_t first_column = folds_ ? at * cut_.width : strip.first_column;
    const int64_t count = std::min(cut_.width, column_.output - first_column);
    const int64_t base = strip.image * shape_.output_image.value_or(shape_.output_channels * shape_.output_pixels());
    const int64_t rows = strip.plane * row_.output + (folds_ ? 0 : at);
    stores.add(source, base + rows * column_.output + first_column, count, 1);
  }

  static CopyList make_list(CopyLists& lists) {
    CopyList list{};
    for (size_t kind = 0; kind < kCopyKinds; ++kind) {
      const std::vector<Copy>& copies = lists.finish()[kind];
      list.begin[kind] = list.copies.size();
      list.copies.insert(list.copies.end(), copies.begin(), copies.end());
    }
    list.begin[kCopyKinds] = list.copies.size();
    return list;
  }

  // The length of a list that is one run from its start to the same places; else 0.
  static size_t straight(const CopyList& list, const std::vector<Run>& targets) {
    const auto stays = [](const Copy& copy) { return copy.source == copy.target; };
    const bool one = targets.size() == 1 && std::all_of(list.copies.begin(), list.copies.end(), stays);
    return one ? targets.front().count : 0;
  }

  // Makes the places relative to the lowest of them, which is returned.
  static ptrdiff_t rebase(std::vector<Copy>& copies, ptrdiff_t Copy::* place) {
    if (copies.empty()) return 0;
    ptrdiff_t lowest = copies.front().*place;
    for (const Copy& copy : copies) lowest = std::min(lowest, copy.*place);
    for (Copy& copy : copies) copy.*place -= lowest;
    return lowest;
  }

  const Kernels& kernels_;
  const ConvShape& shape_;
  size_t entries_;
  int64_t lanes_;
  const ConvAxis& row_;
  const ConvAxis& column_;
  bool folds_;
  int64_t planes_;
  int64_t leading_taps_;
  Cut cut_{};
};

ConvTiles::ConvTiles(const Kernels& kernels, const ConvShape& shape, size_t entries) {
  assert(shape.axes.size() >= 2);
  assert(shape.images >= 1 && shape.output_pixels() >= 1);
  assert(std::all_of(shape.axes.begin(), shape.axes.end(),
                     [](const ConvAxis& axis) { return axis.kernel >= 1 && axis.stride >= 1 && axis.dilation >= 1; }));
  Builder(kernels, shape, entries).build(*this);
}

}  // namespace onnxprune
