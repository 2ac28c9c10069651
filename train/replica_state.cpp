// train/replica_state.cpp - pieces of tensors to whole ones in a checkpoint, and back.
#include "train/replica_state.h"

#include <fmt/format.h>

#include <set>

#include "dist/collect.h"
#include "tensor/ops.h"
#include "train/checksum.h"
#include "train/revision.h"

namespace murmur {
namespace {

const std::string kTraining = ".training";  // a weight that trains, beside the one to use
const std::string kMass = "strategy.mass";  // push_sum's
const std::string kModel = "model/";        // asks for the model's file
const std::string kGraph = "graph";         // what the strategy's state was made with

std::string node(int rank) { return fmt::format("node.{}/", rank); }

std::vector<Piece> weights_of(const Parameters& parameters, const std::string& prefix,
                              const std::string& suffix) {
  std::vector<Piece> pieces;
  for (const Parameter& p : parameters.all()) {
    int64_t begin = p.shape.rank() == 1 ? 0 : p.first_row * p.shape.cols();
    pieces.push_back({prefix + p.name + suffix, p.shape, begin, parameters.value(p)});
  }
  return pieces;
}

std::vector<Piece> state_of(const Update& update, const std::string& prefix) {
  std::vector<Piece> pieces;
  for (const Update::NamedState& s : update.named_state())
    pieces.push_back({prefix + s.name, s.whole, s.begin, s.tensor});
  return pieces;
}

std::vector<NamedTensor> named(std::vector<Collected> collected) {
  std::vector<NamedTensor> all;
  for (Collected& one : collected) all.push_back({std::move(one.name), std::move(one.tensor)});
  return all;
}

bool trains_others(const Replica& replica, const Strategy& strategy, const Communicator& c) {
  return replica.update.averages() || (strategy.own_weights() && c.size() > 1);
}

std::string graph_text(const Strategy& strategy) {
  std::string edges = strategy.graph_of_state();
  return edges.empty() ? "" : checksum_text(crc32c(edges.data(), edges.size()));
}

// "model/NAME", of a checkpoint's weights to use.
Tensor of_model(const Checkpoint& checkpoint, const std::string& asked, const Shape& whole) {
  const std::string name = asked.substr(kModel.size());
  if (!checkpoint.model.contains(name)) {
    throw InputError(fmt::format("{}: no parameter '{}'; the checkpoint is of another model",
                                 checkpoint.path, name));
  }
  Tensor saved = checkpoint.model.read(name);
  if (saved.shape() == whole) return saved;
  throw InputError(
      fmt::format("{}: '{}' is {}, the model wants {}; use the settings the run began with",
                  checkpoint.path, name, text(saved.shape()), text(whole)));
}

void require_all_parameters(const Checkpoint& checkpoint, size_t asked) {
  if (asked == checkpoint.model.names().size()) return;
  throw InputError(
      fmt::format("{}: holds {} parameters, the model has {}; the checkpoint is of another model",
                  checkpoint.path, checkpoint.model.names().size(), asked));
}

// Looks tensors up in a checkpoint, on rank 0.
class Source {
 public:
  Source(const std::string& run_dir, int64_t step, std::string optimizer)
      : checkpoint_(load_checkpoint(run_dir, step)), optimizer_(std::move(optimizer)) {
    for (const std::string& name : checkpoint_.optimizer.names()) {
      if (name.starts_with("node.")) nodes_.insert(std::stoi(name.substr(5)));
    }
  }

  // Those with weights of their own; none: of ranks that train the same.
  const std::set<int>& nodes() const { return nodes_; }
  bool contains(const std::string& name) const { return checkpoint_.optimizer.contains(name); }

  std::string text(const std::string& name) const {
    auto found = checkpoint_.state.text.find(name);
    return found == checkpoint_.state.text.end() ? "" : found->second;
  }

  Tensor find(const std::string& name, const Shape& whole) const {
    if (name.starts_with(kModel)) return of_model(checkpoint_, name, whole);
    if (contains(name)) return of_state(name, whole);
    if (nodes_.empty()) {
      throw InputError(fmt::format(
          "{}: no state '{}' for optimizer {}; resume with the optimizer the run began with",
          checkpoint_.path, name, optimizer_));
    }
    auto share = [&](int k) { return name.ends_with(kTraining) ? mass(k) : 1; };
    double all = 0;
    for (int k : nodes_) all += share(k);
    Tensor mean(whole, checkpoint_.optimizer.read(node(*nodes_.begin()) + name).dtype());
    for (int k : nodes_) {
      Tensor one = of_state(node(k) + name, whole);
      ops::scale(share(k) / all, one, {mean, k != *nodes_.begin()});
    }
    return mean;
  }

  // After everybody got what they asked for: was that all?
  void require_all(const std::set<std::string>& asked) const {
    size_t state = 0, model = 0, extra = 0;
    for (const std::string& name : asked) name.starts_with(kModel) ? model++ : state++;
    if (model > 0) require_all_parameters(checkpoint_, model);
    for (const std::string& name : checkpoint_.optimizer.names()) {
      bool of_ranks =
          name.starts_with("node.") || name.starts_with("outer.") || name.starts_with("strategy.");
      if (!of_ranks && !asked.count(name)) extra++;
    }
    if (extra > 0) {
      throw InputError(fmt::format(
          "{}: holds {} tensors of optimizer state, {} with these settings has {}; resume with "
          "those the run began with",
          checkpoint_.path, state + extra, optimizer_, state));
    }
  }

 private:
  // What the weights of a node count for (Strategy::mass).
  double mass(int k) const {
    std::string name = node(k) + kMass;
    return contains(name) ? item(checkpoint_.optimizer.read(name)) : 1;
  }
  Tensor of_state(const std::string& name, const Shape& whole) const {
    Tensor saved = checkpoint_.optimizer.read(name);
    if (saved.shape() == whole) return saved;
    throw InputError(fmt::format(
        "{}: state '{}' is {}, these settings want {}; resume with those the run began with",
        checkpoint_.path, name, murmur::text(saved.shape()), murmur::text(whole)));
  }

  Checkpoint checkpoint_;
  std::string optimizer_;
  std::set<int> nodes_;
};

}  // namespace

void save_replica(const std::string& run_dir, int64_t step, Replica& replica, Strategy& strategy,
                  Communicator& c, const std::map<std::string, int64_t>& counters, int64_t keep) {
  const Parameters& parameters = replica.model.parameters;
  bool own = strategy.own_weights() && c.size() > 1;
  std::string prefix = own ? node(c.node()) : "";
  std::vector<Piece> pieces = state_of(replica.update, prefix);
  if (trains_others(replica, strategy, c)) {
    for (Piece& weight : weights_of(parameters, prefix, kTraining)) {
      Tensor now = weight.tensor, copy(now.shape(), now.dtype(), now.device());
      ops::copy(now, copy);  // what is saved beside it stands in its place soon
      weight.tensor = copy;
      pieces.push_back(weight);
    }
  }
  for (const Strategy::State& s : strategy.state())
    pieces.push_back({s.own ? prefix + s.name : s.name, s.tensor.shape(), 0, s.tensor});
  std::vector<NamedTensor> state = named(collect(c, pieces));
  CheckpointState rest;
  rest.counters = counters;
  rest.counters["vocabulary"] = replica.model.gpt.vocabulary();
  rest.text["revision"] = revision();
  rest.text[kGraph] = graph_text(strategy);
  replica.with_weights_to_use([&] {
    std::vector<NamedTensor> model = named(collect(c, weights_of(parameters, "", "")));
    if (c.rank() == 0) save_checkpoint(run_dir, step, model, state, rest, keep);
  });
  from_rank_zero(c, "checkpoint on the disk", step);  // a slow one has a name
}

bool restore_replica(const std::string& run_dir, int64_t step, Replica& replica, Strategy& strategy,
                     Communicator& c, const std::string& optimizer) {
  Parameters& parameters = replica.model.parameters;
  std::optional<Source> source;
  if (c.rank() == 0) source.emplace(run_dir, step, optimizer);
  // What the strategy remembers goes with the ranks' own weights; without it they start alike.
  bool several = strategy.own_weights() && c.size() > 1;
  std::set<int> nodes;
  if (several) nodes = {c.members().begin(), c.members().end()};
  auto fits = [&] {
    for (const Strategy::State& s : strategy.state())
      if (!source->contains(several && s.own ? node(c.node()) + s.name : s.name)) return false;
    return source->nodes() == nodes && source->text(kGraph) == graph_text(strategy);
  };
  bool as_saved = from_rank_zero(c, "nodes of the checkpoint", source && fits());
  bool own = several && as_saved;
  std::string prefix = own ? node(c.node()) : "";
  bool training = replica.update.averages() || own;
  std::vector<Piece> pieces =
      weights_of(parameters, training ? prefix : kModel, training ? kTraining : "");
  for (Piece& p : state_of(replica.update, prefix)) pieces.push_back(std::move(p));
  Find find = [&](const std::string& name, const Shape& whole) {
    return source->find(name, whole);
  };
  std::set<std::string> asked = distribute(c, find, pieces);
  if (source) source->require_all(asked);
  parameters.refresh_shadow();
  strategy.weights_replaced();
  if (!as_saved) return false;
  for (const Strategy::State& s : strategy.state()) {
    std::string name = s.own ? prefix + s.name : s.name;
    if (from_rank_zero(c, "state of the strategy", source && source->contains(name)))
      distribute(c, find, {{name, s.tensor.shape(), 0, s.tensor}});
  }
  return true;
}

void begin_with_weights(const std::optional<Checkpoint>& from, Replica& replica, Strategy& strategy,
                        Communicator& c) {
  Parameters& parameters = replica.model.parameters;
  Find find = [&](const std::string& name, const Shape& whole) {
    return of_model(*from, name, whole);
  };
  std::set<std::string> asked = distribute(c, find, weights_of(parameters, kModel, ""));
  if (from) require_all_parameters(*from, asked.size());
  parameters.refresh_shadow();
  strategy.weights_replaced();
}

}  // namespace murmur
