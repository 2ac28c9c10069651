// tests/train/decentralised_test.cpp - runs over a graph as a user types them: every recipe, what a
// checkpoint and a log hold of every node, and what happens when some are lost.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>

#include "dist/transport.h"
#include "optim/registry.h"
#include "optim/svd.h"
#include "tests/train/run_command.h"
#include "tests/train/same_run.h"
#include "train/config.h"
#include "train/data.h"
#include "train/files.h"
#include "train/replica_state.h"

using namespace murmur;

namespace {

struct Documents : Workplace {
  Documents() {
    Words files;
    std::string text = some_text(24000);
    for (size_t i = 0; i < 6; i++) {
      files.push_back(*this / ("document" + std::to_string(i) + ".txt"));
      put_bytes(files.back(), text.substr(i * 4000, 4000));
    }
    output_of(Words{"data", "prepare"} + files + Words{"--out", *this / "documents"});
  }
};

const Documents& place() {
  static const Documents one;
  return one;
}

Words run_of(const std::string& name, const Words& more, int steps = 24, int nodes = 4) {
  Words words = {"--nodes", std::to_string(nodes), "--schedule", "constant", "--warmup", "2",
                 "--steps", std::to_string(steps)};
  bool evaluates = std::find(more.begin(), more.end(), "--eval-every") != more.end();
  if (!evaluates) words = words + Words{"--eval-every", "12"};
  return with(place().train(name, words + more), "--batch-size", std::to_string(2 * nodes));
}

Words going_on(const std::string& name, int steps) {
  return {"train", "--resume", "--out", place() / name, "--steps", std::to_string(steps)};
}

void check_goes_on(const std::string& name, const Words& more) {
  CAPTURE(name);
  output_of(run_of(name + "-whole", more));
  output_of(run_of(name, more, 13));
  output_of(going_on(name, 24));
  check_same_run(place() / name, place() / (name + "-whole"));
}

LogRow last_row(const std::string& name) { return read_log(place() / name + "/log.jsonl").back(); }

}  // namespace

// A default that changes, or one that nobody thought of, such as NorMuon's decay, is then no part
// of a recipe.
TEST_CASE("a recipe names every setting that its formula depends on") {
  for (const Recipe& recipe : recipe_list()) {
    std::map<std::string, std::string> named;
    for (const Assignment& a : recipe.settings) named[a.name] = a.value;
    auto check_named = [&](const std::string& setting) {
      CHECK_MESSAGE(named.contains(setting), recipe.name << " leaves " << setting << " open");
    };
    for (const char* setting : {"strategy", "optimizer", "clip", "warmup"}) check_named(setting);
    if (named["clip"] != "0" && named.contains("clip_growth")) check_named("clip_form");
    for (const std::string owner : {"optimizer", "auxiliary"}) {
      if (!named.contains(owner)) continue;
      auto optimizer = make_optimizer(named[owner]);
      std::vector<Option> options = all_options(*optimizer);
      bool has_form = std::any_of(options.begin(), options.end(),
                                  [](const Option& o) { return bool(o.chosen); });
      const std::set<std::string> beside_form = {"form", "lr", "weight_decay", "momentum",
                                                 "nesterov"};
      for (const Option& option : options) {
        bool by_form = has_form && !beside_form.contains(option.name);
        bool by_one_rate =
            owner == "auxiliary" && option.name == "lr" && named["one_rate"] == "true";
        if (!by_form && !by_one_rate && option.name != "cautious_decay")
          check_named(owner + "." + option.name);
      }
    }
    for (const Option& option : make_strategy(named["strategy"])->options()) {
      if (option.name == "momentum" || option.name == "refresh" || option.name == "nesterov")
        check_named("strategy." + option.name);
    }
    const bool decays = recipe.formula.find("AdamW") != std::string::npos;
    Config config = make_config({{"recipe", recipe.name}, {"nodes", "2"}});
    for (const Route& route : make_routes(config))
      CHECK((route.use.optimizer->weight_decay > 0) == decays);
    if (recipe.published.empty()) {
      CHECK_THROWS_AS(make_config({{"recipe", recipe.name}, {"recipe_values", "published"}}),
                      InputError);
      continue;
    }
    Config published =
        make_config({{"recipe", recipe.name}, {"recipe_values", "published"}, {"nodes", "2"}});
    for (const auto& [key, value, where] : recipe.published) {
      if (key == "optimizer.lr")
        CHECK(make_routes(published)[0].use.optimizer->learning_rate == std::stod(value));
      if (key == "warmup") CHECK(published.warmup == std::stoll(value));
    }
  }
}

TEST_CASE("with their own settings DeMuon and DeNorMuon are ahead of gossip, from early on") {
  std::map<std::string, double> loss;
  for (const std::string recipe : {"demuon", "denormuon", "dsgd"}) {
    std::string name = "early-" + recipe;
    output_of(with(run_of(name, {"--recipe", recipe, "--topology", "ring"}, 60), "--n-embd", "32"));
    loss[recipe] = *last_row(name).val_loss;
  }
  CHECK(loss["demuon"] < loss["dsgd"] - 0.1);
  CHECK(loss["denormuon"] < loss["dsgd"] - 0.1);
}

TEST_CASE("every recipe trains, and goes on to the bit with every node's state") {
  REQUIRE(recipe_list().size() >= 10);
  for (const Recipe& recipe : recipe_list()) {
    CAPTURE(recipe.name);
    check_goes_on(recipe.name, {"--recipe", recipe.name, "--topology", "exponential"});
    LogRow row = last_row(recipe.name);
    CHECK(std::isfinite(row.train_loss));
    CHECK(row.nodes == 4);
    CHECK(*row.consensus > 0);
    CHECK(row.node_train_loss.size() == 4);
    CHECK(row.node_val_loss.size() == 4);
  }
}

TEST_CASE("what is under way, and what neighbours remember, goes on as well") {
  Words lazy = {"--topology", "ring", "--lazy-weights", "true"};
  check_goes_on("late", Words{"--recipe", "dsgd", "--strategy.overlap", "true"} + lazy);
  check_goes_on(
      "cta",
      Words{"--recipe", "dadamw", "--strategy.overlap", "true", "--strategy.order", "cta"} + lazy);
  check_goes_on(
      "gt-cta",
      Words{"--recipe", "demuon", "--strategy.overlap", "true", "--strategy.order", "cta"} + lazy);
  check_goes_on("int8", Words{"--recipe", "demuon", "--strategy.wire", "int8"} + lazy);
  check_goes_on("bf16", Words{"--recipe", "demuon", "--strategy.wire", "bf16", "--topology",
                              "one_peer_exponential"});
  check_goes_on("choco", Words{"--recipe", "dsgd", "--strategy.keep", "0.1"} + lazy);
  check_goes_on("moments", Words{"--recipe", "denormuon", "--strategy.mix_state", "v",
                                 "--strategy.gossip_rounds", "4", "--strategy.chebyshev", "true"} +
                               lazy);
  check_goes_on("d2", Words{"--strategy", "d2", "--optimizer", "muon"} + lazy);
  check_goes_on("faults", Words{"--recipe", "demuon", "--topology", "ring", "--faults",
                                "lose:2@5,rejoin:2@18,skip:1@3-4,delay:1@6:0.001"});
}

TEST_CASE("a checkpoint holds every node; the log says how far apart they are") {
  output_of(run_of("apart", {"--recipe", "demuon", "--topology", "ring"}));
  Checkpoint saved = load_checkpoint(place() / "apart");
  const int nodes = 4;
  double frobenius = 0, spectral = 0;
  for (const std::string& name : saved.model.names()) {
    Tensor mean = saved.model.read(name);
    int64_t rows = mean.shape().rank() == 1 ? 1 : mean.rows(), cols = mean.numel() / rows;
    std::vector<double> sum(size_t(mean.numel())), gram(size_t(cols * cols));
    std::vector<std::vector<double>> x;
    for (int k = 0; k < nodes; k++) {
      x.push_back(
          to_vector(saved.optimizer.read("node." + std::to_string(k) + "/" + name + ".training")));
      for (size_t i = 0; i < sum.size(); i++) sum[i] += x.back()[i] / nodes;
    }
    std::vector<double> of_model = to_vector(mean);
    double squares = 0;
    for (size_t i = 0; i < sum.size(); i++)
      CHECK(of_model[i] == doctest::Approx(sum[i]).epsilon(1e-5));
    for (auto& one : x) {
      for (size_t i = 0; i < sum.size(); i++) squares += std::pow(one[i] -= sum[i], 2);
      for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < cols; i++)
          for (int64_t j = 0; j < cols; j++)
            gram[size_t(i * cols + j)] += one[size_t(r * cols + i)] * one[size_t(r * cols + j)];
    }
    frobenius += squares;
    if (rows == 1) {
      spectral += squares;
      continue;
    }
    Tensor g = Tensor::of(gram, {1, cols, cols}, DType::f64), vectors(g.shape(), DType::f64);
    eigenvectors(g, vectors);
    double largest = 0;  // v^T G v of the first
    for (int64_t i = 0; i < cols; i++)
      for (int64_t j = 0; j < cols; j++)
        largest += vectors.data<double>()[i * cols] * gram[size_t(i * cols + j)] *
                   vectors.data<double>()[j * cols];
    spectral += largest;
  }
  LogRow row = last_row("apart");
  CHECK(*row.consensus == doctest::Approx(std::sqrt(frobenius)).epsilon(1e-4));
  CHECK(*row.consensus_spectral == doctest::Approx(std::sqrt(spectral)).epsilon(5e-3));
  CHECK(*row.consensus_spectral <= *row.consensus * (1 + 1e-6));
  CHECK(*row.tracker_error < 1e-5);

  std::string mean = output_of({"eval", place() / "apart", "--json"});
  output_of({"export", place() / "apart", "--out", place() / "exported"});
  CHECK(output_of({"eval", place() / "exported", "--json"}) == mean);
  output_of({"export", place() / "apart", "--node", "2", "--out", place() / "second"});
  std::string second = output_of({"eval", place() / "apart", "--node", "2", "--json"});
  CHECK(second != mean);
  CHECK(output_of({"eval", place() / "second", "--json"}) == second);
  output_of({"sample", place() / "second", "--tokens", "5"});
  check_refused({"eval", place() / "apart", "--node", "4"}, {"node", "4"});
  check_refused({"export", place() / "apart", "--out", place() / "second"}, {"out", "second"});
}

TEST_CASE("another number of nodes, or another strategy, begins with the mean") {
  Words words = {"--recipe", "demuon", "--topology", "ring"};
  output_of(run_of("four", words, 12));
  double loss = *last_row("four").val_loss;
  for (Words more : {Words{"--nodes", "2", "--strategy", "gradient_tracking"},
                     Words{"--nodes", "4", "--strategy", "gossip"}, Words{"--nodes", "1"}}) {
    std::filesystem::remove_all(place() / "other");
    std::filesystem::copy(place() / "four", place() / "other",
                          std::filesystem::copy_options::recursive);
    output_of(going_on("other", 24) + more);
    CHECK(*last_row("other").val_loss < loss + 0.05);
  }
}

TEST_CASE("nodes are lost and come back: the run goes on, says so, and repeats to the bit") {
  for (std::string recipe : {"demuon", "dadamw", "qg_dsgdm", "sgp"}) {
    for (std::string topology : {"ring", "exponential"}) {
      CAPTURE(recipe);
      CAPTURE(topology);
      Words words = {"--recipe", recipe, "--topology", topology, "--lr", "0.01"};
      Words faults = {"--faults", "lose:3@31,lose:0@45,rejoin:3@90"};
      output_of(run_of("undisturbed", words, 120, 5));
      std::string said = output_of(run_of("disturbed", words + faults, 120, 5));
      CHECK(contains(said, "node 3 lost; 4 of 5 go on, "));
      bool dropped = topology == "ring" || recipe == "sgp";  // whose columns still sum to 1
      CHECK(contains(said, dropped ? "edges dropped" : "rebuilt as exponential"));
      CHECK(contains(said, "node 3 back; 4 of 5 go on"));
      output_of(run_of("again", words + faults, 120, 5));
      check_same_run(place() / "disturbed", place() / "again");
      double was = *last_row("undisturbed").val_loss, is = *last_row("disturbed").val_loss;
      CHECK(is < 1.04 * was);  // two of five are gone most of the time
      CHECK(last_row("disturbed").nodes == 4);
      CHECK(read_log(place() / "disturbed/log.jsonl").size() == 120);
      if (recipe == "demuon") CHECK(*last_row("disturbed").tracker_error < 1e-5);
      for (const char* folder : {"undisturbed", "disturbed", "again"})
        std::filesystem::remove_all(place() / folder);
    }
  }
}

TEST_CASE("a script that cannot happen is refused in one line") {
  auto refused = [](const std::string& script, const Words& parts, const Words& more = {}) {
    check_refused(run_of("refused", Words{"--recipe", "demuon", "--faults", script} + more),
                  Words{"faults"} + parts);
    CHECK_FALSE(std::filesystem::exists(place() / "refused/config.toml"));
  };
  refused("lose:9@3", {"lose:9@3", "0 to 3"});
  refused("lose:1", {"lose:1", "lose:5@300"});
  refused("lose:1@3,lose:1@5", {"lost already"});
  refused("rejoin:1@3", {"not lost"});
  refused("delay:1@3", {"seconds"});
  refused("skip:1@9-3", {"order"});
  refused("lose:0@2,lose:1@3,lose:2@4,lose:3@5", {"nobody"});
  check_refused(run_of("refused", {"--strategy", "sharded", "--faults", "lose:1@3"}),
                {"faults", "gossip"});
}

TEST_CASE("nodes with documents of their own, and recipes in a race over graphs") {
  Words words = {"compare",
                 "--optimizers",
                 "demuon,dsgd:lr=0.2,muon:strategy=all_reduce",
                 "--over",
                 "topology=ring,complete;partition=iid,by-document",
                 "--seeds",
                 "2",
                 "--data",
                 place() / "documents",
                 "--out",
                 place() / "race",
                 "--n-layer",
                 "1",
                 "--n-head",
                 "2",
                 "--n-embd",
                 "16",
                 "--block-size",
                 "16",
                 "--batch-size",
                 "6",
                 "--nodes",
                 "3",
                 "--steps",
                 "12",
                 "--warmup",
                 "2"};
  output_of(words);
  std::string table = read_file(place() / "race/over.md");
  for (const char* part :
       {"topology=ring,partition=by-document", "demuon", "dsgd", "muon:strategy"})
    CHECK(contains(table, part));
  CHECK(std::filesystem::exists(place() / "race/topology=complete,partition=iid/compare.png"));
  CHECK(output_of(words).size() > 0);  // nothing is trained again
  check_refused(with(words, "--over", "topology"), {"over", "topology"});
  check_refused(with(words, "--over", "topology=rong"), {"topology", "rong", "ring"});
  check_refused(with(words, "--optimizers", "demuo"), {"demuo", "demuon"});
}

TEST_CASE("64 nodes train in one process") {
  std::string said = output_of(run_of(
      "many", {"--recipe", "demuon", "--topology", "exponential", "--eval-batches", "64"}, 12, 64));
  CHECK(contains(said, "64 ranks"));
  CHECK(last_row("many").node_val_loss.size() == 64);
}

TEST_CASE("nodes come back from those that stayed; who leads may change") {
  check_goes_on("all-change", {"--recipe", "denormuon", "--topology", "complete", "--faults",
                               "lose:0@5,lose:1@6,lose:2@7,rejoin:0@20"});
  check_goes_on("two-back", {"--recipe", "dsgt", "--topology", "ring", "--faults",
                             "lose:0@8,lose:1@8,rejoin:0@18,rejoin:1@18"});
  // Where both are back with the weights of a third, their distance is that of one step.
  output_of(run_of("two-back-1", {"--recipe", "dsgd", "--topology", "ring", "--faults",
                                  "lose:0@3,lose:1@3,rejoin:0@24,rejoin:1@24"}));
  output_of(run_of("none-lost", {"--recipe", "dsgd", "--topology", "ring"}));
  CHECK(*last_row("two-back-1").consensus < 2 * *last_row("none-lost").consensus);
  check_refused(
      run_of("nobody", {"--recipe", "dsgd", "--faults", "lose:0@3,lose:1@5,rejoin:0@5"}, 24, 2),
      {"faults", "lose:1@5"});
}

TEST_CASE("messages under way at a skipped step go on as they were") {
  check_goes_on("late-skip", {"--recipe", "dsgd", "--strategy.overlap", "true", "--topology",
                              "ring", "--lazy-weights", "true", "--faults", "skip:1@12-14"});
  check_refused(run_of("skip-directed",
                       {"--recipe", "sgp", "--topology", "exponential", "--faults", "skip:1@20"}),
                {"faults", "directed"});
  CHECK(!std::filesystem::exists(place() / "skip-directed/log.jsonl"));
}

TEST_CASE("what a strategy remembers of one graph is not for another") {
  Words ring = {"--topology", "ring"};
  output_of(run_of("pushed", Words{"--strategy", "push_sum", "--optimizer", "sgd"} + ring));
  double before = *last_row("pushed").val_loss;
  std::string text =
      output_of(going_on("pushed", 25) + Words{"--topology", "path", "--weights", "column"});
  CHECK(text.find("mean") == std::string::npos);  // x and s keep their sums on any graph
  CHECK(*last_row("pushed").val_loss < before + 0.1);
  output_of(run_of("pulled", Words{"--recipe", "dsgd", "--strategy.wire", "int8"} + ring));
  text = output_of(going_on("pulled", 25) + Words{"--topology", "complete"});
  CHECK(text.find("mean") != std::string::npos);
  CHECK(*last_row("pulled").consensus < 0.1);
  check_refused(going_on("pulled", 26) + Words{"--recipe", "demuon"}, {"recipe", "dsgd", "demuon"});
}

// x of a node is s z: the mean of all is sum s z / sum s, in the model's file, and for those who
// begin with it where weights that train are others than weights to use.
TEST_CASE("push-sum's checkpoint: nodes count by their mass, also for others who begin with it") {
  output_of(run_of("weighed",
                   {"--strategy", "push_sum", "--weights", "column", "--topology", "star",
                    "--optimizer", "schedule_free_adamw"},
                   7));
  const std::string run = place() / "weighed";
  SafetensorsFile state = load_checkpoint(run).optimizer;
  auto of = [&](int node, const std::string& name) {
    return to_vector(state.read("node." + std::to_string(node) + "/" + name));
  };
  double all = 0, farthest = 0;
  for (int k = 0; k < 4; k++) {
    all += of(k, "strategy.mass")[0];
    farthest = std::max(farthest, std::fabs(of(k, "strategy.mass")[0] - 1));
  }
  CHECK(all == doctest::Approx(4).epsilon(1e-12));
  CHECK(farthest > 0.1);
  Config config = make_config(read_toml(run + "/config.toml"));
  std::mutex mutex;
  run_ranks("threads", World{2, 60, Device::cpu}, [&](Communicator& c) {
    auto strategy = configured_strategy(config);
    strategy->join(c);
    Replica replica({model_config(config, Dataset(config.data).vocab_size()),
                     1,
                     DType::f32,
                     Device::cpu,
                     make_routes(config),
                     {},
                     2,
                     1},
                    c, *strategy);
    CHECK(!restore_replica(run, 7, replica, *strategy, c, config.optimizer));
    std::lock_guard lock(mutex);
    for (const Parameter& p : replica.model.parameters.all()) {
      CAPTURE(p.name);
      std::vector<double> expected(size_t(p.shape.numel()));
      for (int k = 0; k < 4; k++) {
        std::vector<double> x = of(k, p.name + ".training");
        for (size_t i = 0; i < x.size(); i++) expected[i] += of(k, "strategy.mass")[0] / all * x[i];
      }
      std::vector<double> found = to_vector(replica.model.parameters.value(p));
      for (size_t i = 0; i < found.size(); i++)
        REQUIRE(found[i] == doctest::Approx(expected[i]).epsilon(1e-5));
    }
  });
}
