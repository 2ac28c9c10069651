// dist/ownership.cpp - dealing out matrices by cost, and rows by what is left.
#include "dist/ownership.h"

#include <algorithm>
#include <cmath>

#include "dist/collectives.h"  // share_begin

namespace murmur {
namespace {

struct Load {
  double cost = 0;
  int64_t elements = 0;
};

// Whole matrices: how many of every bank each rank owns.
void deal_matrices(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
                   std::vector<Load>& loads, Ownership& owned) {
  std::vector<size_t> order;
  for (size_t i = 0; i < banks.size(); i++) {
    if (!routes[i]->use.optimizer->elementwise()) order.push_back(i);
  }
  auto cost = [&](size_t i) { return orthogonalization_flops(banks[i], *routes[i]); };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return cost(a) > cost(b); });
  for (size_t i : order) {
    std::vector<int64_t> counts(loads.size());
    for (int64_t k = 0; k < banks[i].count; k++) {
      size_t least = 0;
      for (size_t r = 1; r < loads.size(); r++) {
        auto work = [&](size_t rank) { return std::pair(loads[rank].cost, loads[rank].elements); };
        if (work(r) < work(least)) least = r;
      }
      loads[least].cost += cost(i);
      loads[least].elements += banks[i].rows * banks[i].cols;
      counts[least]++;
    }
    int64_t member = 0;
    for (size_t r = 0; r < counts.size(); r++) {
      if (counts[r] == 0) continue;
      owned[r].push_back({i, {member, member + counts[r], 0, banks[i].rows}});
      member += counts[r];
    }
  }
}

// How many elements each rank takes so that all come as close to one level as they can.
std::vector<int64_t> fill_up(const std::vector<Load>& loads, int64_t elements) {
  std::vector<int64_t> have;
  for (const Load& load : loads) have.push_back(load.elements);
  std::vector<int64_t> sorted = have;
  std::sort(sorted.begin(), sorted.end());
  double level = 0, below = 0;
  for (size_t i = 0; i < sorted.size(); i++) {
    below += double(sorted[i]);
    level = (double(elements) + below) / double(i + 1);
    if (i + 1 == sorted.size() || level <= double(sorted[i + 1])) break;
  }
  std::vector<int64_t> takes;
  for (int64_t h : have) takes.push_back(std::max<int64_t>(0, std::llround(level - double(h))));
  return takes;
}

// Rows [begin, end) of all members one after another, as cuts.
void append_rows(size_t index, const Bank& bank, int64_t begin, int64_t end,
                 std::vector<Owned>& owned) {
  while (begin < end) {
    int64_t member = begin / bank.rows, row = begin % bank.rows;
    int64_t members = row == 0 ? (end - begin) / bank.rows : 0;
    if (members > 0) {
      owned.push_back({index, {member, member + members, 0, bank.rows}});
      begin += members * bank.rows;
    } else {
      int64_t stop = std::min(bank.rows, row + end - begin);
      owned.push_back({index, {member, member + 1, row, stop}});
      begin += stop - row;
    }
  }
}

void deal_rows(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
               const std::vector<Load>& loads, Ownership& owned) {
  int64_t elements = 0;
  for (size_t i = 0; i < banks.size(); i++) {
    if (routes[i]->use.optimizer->elementwise())
      elements += banks[i].count * banks[i].rows * banks[i].cols;
  }
  std::vector<int64_t> takes = fill_up(loads, elements), ends;
  for (int64_t take : takes) ends.push_back((ends.empty() ? 0 : ends.back()) + take);
  int64_t first = 0;  // element of the bank, of all that are dealt out
  for (size_t i = 0; i < banks.size(); i++) {
    if (!routes[i]->use.optimizer->elementwise()) continue;
    const Bank& bank = banks[i];
    int64_t rows = bank.count * bank.rows, begin = 0;
    for (size_t r = 0; r < ends.size(); r++) {
      int64_t end = (ends[r] - first + bank.cols / 2) / bank.cols;  // to the nearest row
      end = r + 1 == ends.size() ? rows : std::clamp(end, begin, rows);
      append_rows(i, bank, begin, end, owned[r]);
      begin = end;
    }
    first += rows * bank.cols;
  }
}

}  // namespace

double orthogonalization_flops(const Bank& bank, const Route& route) {
  Bank one = bank;
  one.count = 1;
  one.value = one.gradient = one.shadow = {};
  Bank blocks = with_row_blocks(one, route.row_blocks);
  double m = double(std::min(blocks.rows, blocks.cols)),
         n = double(std::max(blocks.rows, blocks.cols));
  return double(blocks.count) * (20 * m * m * n + 10 * m * m * m);
}

std::vector<double> orthogonalization_flops(const Ownership& ownership,
                                            const std::vector<Bank>& banks,
                                            const std::vector<const Route*>& routes) {
  std::vector<double> flops;
  for (const std::vector<Owned>& owned : ownership) {
    flops.push_back(0);
    for (const Owned& o : owned) {
      if (routes[o.bank]->use.optimizer->elementwise()) continue;
      flops.back() +=
          double(o.cut.members()) * orthogonalization_flops(banks[o.bank], *routes[o.bank]);
    }
  }
  return flops;
}

double least_orthogonalization_flops(const std::vector<Bank>& banks,
                                     const std::vector<const Route*>& routes, int ranks) {
  double all = 0, dearest = 0;
  for (size_t i = 0; i < banks.size(); i++) {
    if (routes[i]->use.optimizer->elementwise()) continue;
    double one = orthogonalization_flops(banks[i], *routes[i]);
    all += double(banks[i].count) * one;
    dearest = std::max(dearest, one);
  }
  return std::max(dearest, all / double(ranks));
}

int64_t flat_size(const std::vector<Bank>& banks) {
  int64_t size = 0;
  for (const Bank& bank : banks) size = bank_begin(size) + bank.count * bank.rows * bank.cols;
  return size;
}

double state_elements(const Bank& bank, const Route& route) {
  Bank shapes = bank;
  shapes.value = shapes.gradient = shapes.shadow = {};
  double elements = 0;
  for (const StateShape& s : route.use.optimizer->state(with_row_blocks(shapes, route.row_blocks)))
    elements += double(s.shape.numel());
  return elements;
}

Ownership owners(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
                 int ranks) {
  Ownership owned{size_t(ranks)};
  std::vector<Load> loads{size_t(ranks)};
  deal_matrices(banks, routes, loads, owned);
  deal_rows(banks, routes, loads, owned);
  return owned;
}

Cut even_cut(const Bank& whole, int rank, int ranks) {
  bool vectors = whole.rows == 1;
  int64_t count = vectors ? whole.count : whole.rows;
  int64_t begin = share_begin(count, rank, ranks), end = share_begin(count, rank + 1, ranks);
  return vectors ? Cut{begin, end, 0, 1} : Cut{0, whole.count, begin, end};
}

}  // namespace murmur
