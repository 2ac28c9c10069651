// train/position.cpp - where the next batch begins.
#include "train/position.h"

#include <fmt/format.h>

#include <algorithm>

#include "dist/collectives.h"

namespace murmur {

Position::Position(int64_t batch_size, int64_t block_size, int nodes, bool apart)
    : batch_(batch_size), block_(block_size), apart_(apart), of_node_(size_t(nodes)) {}

void Position::restore(int64_t step, const Counters& counters) {
  auto counter = [&](const std::string& name, int64_t otherwise) {
    auto found = counters.find(name);
    return found == counters.end() ? otherwise : found->second;
  };
  const int64_t nodes = int64_t(of_node_.size());
  auto name = [](int64_t node) { return fmt::format("node.{}.tokens", node); };
  step_ = step;
  tokens_ = counter("tokens", step * batch_ * block_);
  const bool same = counters.count(name(nodes - 1)) && !counters.count(name(nodes));
  for (int64_t node = 0; node < nodes; node++)
    of_node_[size_t(node)] = same ? counter(name(node), 0) : tokens_ / nodes;
}

void Position::share(Communicator& c) {
  std::vector<double> values(of_node_.begin(), of_node_.end());
  values.insert(values.end(), {double(step_), double(tokens_)});
  Tensor all = Tensor::of(values, {int64_t(values.size())}, DType::f64);
  broadcast(c, "how far the text was read", 0, {all});
  values = to_vector(all);
  std::copy(values.begin(), values.end() - 2, of_node_.begin());
  step_ = int64_t(values.end()[-2]);
  tokens_ = int64_t(values.end()[-1]);
}

int64_t Position::tokens(int64_t step) const { return tokens_ + (step - step_) * batch_ * block_; }

int64_t Position::of_node(int64_t step, int node) const {
  const int nodes = int(of_node_.size());
  const int64_t share = share_begin(batch_, node + 1, nodes) - share_begin(batch_, node, nodes);
  return of_node_[size_t(node)] + (step - step_) * share * block_;
}

int64_t Position::sequences(int64_t step) const { return tokens(step) / block_; }
int64_t Position::sequences(int64_t step, int node) const { return of_node(step, node) / block_; }

Position::Counters Position::counters(int64_t step) const {
  Counters all = {{"tokens", tokens(step)}};
  for (int node = 0; apart_ && node < int(of_node_.size()); node++)
    all[fmt::format("node.{}.tokens", node)] = of_node(step, node);
  return all;
}

}  // namespace murmur
