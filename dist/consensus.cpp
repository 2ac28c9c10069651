// dist/consensus.cpp - a few random columns, mixed again and again.
#include "dist/consensus.h"

#include <cmath>
#include <random>

#include "tensor/check.h"

namespace murmur {
namespace {

using Column = std::vector<double>;

constexpr int kColumns = 8;  // enough for an even curve

// Normal numbers by Box and Muller: those of <random> differ between libraries.
Column random_column(int nodes, int seed) {
  std::mt19937_64 random{uint64_t(seed)};
  auto uniform = [&] { return (double(random() >> 11) + 0.5) * 0x1p-53; };
  Column x(nodes);
  for (double& value : x)
    value = std::sqrt(-2 * std::log(uniform())) * std::cos(2 * M_PI * uniform());
  return x;
}

double mean_of(const Column& x) {
  double sum = 0;
  for (double value : x) sum += value;
  return sum / double(x.size());
}

double square_distance(const Column& x, double mean) {
  double sum = 0;
  for (double value : x) sum += (value - mean) * (value - mean);
  return sum;
}

Column mixed(const Topology& t, int round, const Column& x) {
  Column y(x.size());
  for (int to = 0; to < t.nodes(); to++) {
    double sum = t.weight(round, to, to) * x[to];
    for (const Topology::In& in : t.in(round, to)) sum += in.weight * x[in.peer];
    y[to] = sum;
  }
  return y;
}

// `averaged(x_0, each)` calls each(x_k) for every round; errors of several columns are added.
template <class Averaged>
std::vector<double> errors(int nodes, int rounds, Averaged averaged) {
  std::vector<double> left(rounds + 1);
  for (int column = 0; column < kColumns; column++) {
    Column start = random_column(nodes, column + 1);
    double mean = mean_of(start);
    size_t k = 0;
    averaged(start, [&](const Column& x) { left[k++] += square_distance(x, mean); });
  }
  double first = left[0] > 0 ? left[0] : 1;
  for (double& value : left) value = std::sqrt(value / first);
  return left;
}

}  // namespace

std::vector<double> gossip_errors(const Topology& t, int rounds, bool push_sum) {
  return errors(t.nodes(), rounds, [&](Column x, auto each) {
    Column shares(x.size(), 1.0), values = x;
    each(values);
    for (int k = 0; k < rounds; k++) {
      x = mixed(t, k % t.rounds(), x);
      if (push_sum) shares = mixed(t, k % t.rounds(), shares);
      for (size_t i = 0; i < x.size(); i++) values[i] = x[i] / shares[i];
      each(values);
    }
  });
}

std::vector<double> chebyshev_errors(const Topology& t, double rho, int rounds) {
  check(!t.directed() && t.rounds() == 1 && rho > 0 && rho < 1,
        "chebyshev: wants a symmetric W that stays the same, and 0 < rho < 1");
  return errors(t.nodes(), rounds, [&](Column before, auto each) {
    each(before);
    if (rounds == 0) return;
    Column x = mixed(t, 0, before);
    each(x);
    double ratio = rho;  // a_{k - 1} / a_k
    for (int k = 1; k < rounds; k++) {
      double next_ratio = 1 / (2 / rho - ratio);
      Column next = mixed(t, 0, x);
      for (size_t i = 0; i < x.size(); i++)
        next[i] = 2 / rho * next_ratio * next[i] - ratio * next_ratio * before[i];
      before = std::move(x), x = std::move(next), ratio = next_ratio;
      each(x);
    }
  });
}

}  // namespace murmur
