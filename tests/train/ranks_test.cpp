// tests/train/ranks_test.cpp - runs of several ranks as a user types them: interrupted, resumed,
// and taken on by another number of ranks and another strategy.
#include <unistd.h>  // usleep

#include <algorithm>
#include <cmath>

#include "dist/strategy.h"
#include "tests/train/run_command.h"
#include "tests/train/same_run.h"
#include "train/files.h"

using namespace murmur;

namespace {

const Workplace& place() {
  static const Workplace one;
  return one;
}

std::string after(const std::string& text, int steps) { return text + "-" + std::to_string(steps); }

Words ranks(const std::string& strategy, int count) {
  // Lazy: of those that go by a graph d2 diverges on a ring of four without.
  return {"--lazy-weights", "true", "--nodes", std::to_string(count), "--strategy", strategy};
}

Words run_of(const std::string& name, int steps, const Words& more) {
  bool other = std::find(more.begin(), more.end(), "--optimizer") != more.end();
  Words optimizer = other ? Words{} : Words{"--optimizer", "normuon"};
  Words words = place().train(name, optimizer +
                                        Words{"--schedule", "constant", "--warmup", "2",
                                              "--eval-every", "4", "--steps",
                                              std::to_string(steps)} +
                                        more);
  return with(words, "--batch-size", "12");  // as many for each of two, three and four
}

Words going_on(const std::string& name, int steps, const Words& more = {}) {
  return Words{"train", "--resume", "--out", place() / name, "--steps", std::to_string(steps)} +
         more;
}

double last_validation(const std::string& name) {
  return *read_log(place() / name + "/log.jsonl").back().val_loss;
}

}  // namespace

TEST_CASE("a run of several ranks goes on to the bit, whatever they do together") {
  for (const StrategyEntry& entry : strategy_list()) {
    Words more = ranks(entry.name, 3);
    if (entry.name == "local_sgd") more = more + Words{"--strategy.inner_steps", "4"};
    std::string name = entry.name + "-whole", part = entry.name + "-part";
    CAPTURE(entry.name);
    output_of(run_of(name, 10, more));
    output_of(run_of(part, 6, more));  // in the middle of a round
    output_of(going_on(part, 10));
    check_same_run(place() / part, place() / name);
    CHECK(read_log(place() / name + "/log.jsonl").back().nodes == 3);
  }
}

TEST_CASE("a signal ends all ranks after the same step, and the run goes on") {
  for (const char* strategy : {"sharded", "fsdp"}) {
    std::string name = std::string("stopped-") + strategy;
    Words more = ranks(strategy, 2);
    Command command(run_of(name, 100000, more));
    std::string log = place() / name + "/log.jsonl";
    for (int i = 0; i < 1000 && !std::filesystem::exists(log); i++) usleep(10000);
    usleep(300000);
    command.send(SIGTERM);
    Outcome outcome = command.wait();
    CHECK(outcome.code == 130);
    int64_t steps = load_checkpoint(place() / name).step;
    CHECK(steps > 0);
    CHECK(read_log(log).back().step == steps);
    output_of(going_on(name, int(steps) + 2));
    output_of(run_of(name + "-whole", int(steps) + 2, more));
    check_same_run(place() / name, place() / (name + "-whole"));
  }
}

TEST_CASE("a checkpoint restores into any number of ranks and any strategy") {
  std::vector<std::string> exact;
  for (const StrategyEntry& entry : strategy_list()) {
    if (!entry.make()->own_weights()) exact.push_back(entry.name);
  }
  output_of(run_of("one", 12, {}));
  double expected = last_validation("one");
  int count = 4;
  for (const std::string& from : exact) {
    output_of(run_of("from-" + from, 6, ranks(from, count)));
    for (const std::string& to : exact) {
      std::string name = from + "-to-" + to;
      CAPTURE(name);
      std::filesystem::copy(place() / ("from-" + from), place() / name,
                            std::filesystem::copy_options::recursive);
      output_of(going_on(name, 12, ranks(to, count == 4 ? 3 : 2)));
      CHECK(last_validation(name) == doctest::Approx(expected).epsilon(1e-5));
    }
    output_of(going_on("from-" + from, 12, {"--nodes", "1"}));  // alone
    CHECK(last_validation("from-" + from) == doctest::Approx(expected).epsilon(1e-5));
    count = 3;
  }
}

TEST_CASE(
    "ranks with weights of their own leave their mean to any others, and any others to them") {
  output_of(run_of("own", 7, ranks("local_sgd", 3) + Words{"--strategy.inner_steps", "5"}));
  output_of({"eval", place() / "own"});
  for (const Words& more : {ranks("sharded", 2), ranks("local_sgd", 2), Words{"--nodes", "1"}}) {
    std::string name = after("own-taken-on-by-" + more.back(), int(more.size()));
    std::filesystem::copy(place() / "own", place() / name,
                          std::filesystem::copy_options::recursive);
    output_of(going_on(name, 12, more));
    CHECK(std::isfinite(last_validation(name)));
  }
  output_of(run_of("shared", 6, ranks("fsdp", 2)));
  output_of(going_on("shared", 12, ranks("local_sgd", 3)));
  CHECK(std::isfinite(last_validation("shared")));
}

TEST_CASE(
    "averaged weights, score limits, bf16, checkpointing and accumulation with every strategy") {
  const std::vector<Words> cases = {
      {"--optimizer", "schedule_free_adamw"},
      {"--optimizer", "muon", "--optimizer.qk_clip", "0.5", "--arch", "gpt2"},
      {"--dtype", "bf16"},
      {"--checkpointing", "true", "--arch", "modern"},
      {"--accumulation", "2", "--row-blocks", "qkv"}};
  for (size_t i = 0; i < cases.size(); i++) {
    std::string alone = "alone" + std::to_string(i);
    output_of(run_of(alone, 6, cases[i]));
    for (const StrategyEntry& entry : strategy_list()) {
      if (entry.make()->own_weights()) continue;
      std::string name = entry.name + std::to_string(i);
      CAPTURE(name);
      output_of(run_of(name, 3, cases[i] + ranks(entry.name, 2)));
      output_of(going_on(name, 6));
      double tolerance = cases[i][1] == "bf16" ? 5e-3 : 1e-5;
      CHECK(last_validation(name) == doctest::Approx(last_validation(alone)).epsilon(tolerance));
    }
  }
}

TEST_CASE("settings of a strategy can be changed when a run goes on, and its ranks stay") {
  output_of(run_of("ways", 6, ranks("local_sgd", 2)));
  output_of(going_on("ways", 8, {"--strategy.inner_steps", "2"}));
  CHECK(read_log(place() / "ways/log.jsonl").back().nodes == 2);
  output_of(going_on("ways", 10, {"--nodes", "3"}));  // the strategy stays
  std::string settings = read_file(place() / "ways/config.toml");
  CHECK(settings.find("[strategy]\nname = \"local_sgd\"") != std::string::npos);
  CHECK(settings.find("inner_steps = 2") != std::string::npos);
  CHECK(read_log(place() / "ways/log.jsonl").back().nodes == 3);
}

TEST_CASE("ranks that never met agree from the first outer step on") {
  output_of(run_of("apart", 4, ranks("local", 2)));
  output_of(
      going_on("apart", 6,
               ranks("local_sgd", 2) + Words{"--strategy.inner_steps", "1", "--strategy.outer_lr",
                                             "1", "--strategy.outer_momentum", "0"}));
  SafetensorsFile state = load_checkpoint(place() / "apart").optimizer;
  for (const std::string& name : state.names()) {
    if (!name.starts_with("node.0/") || !name.ends_with(".training")) continue;
    CAPTURE(name);
    Tensor a = state.read(name), b = state.read("node.1" + name.substr(6));
    CHECK(std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
  }
}

TEST_CASE("more ranks than rows of a matrix, and matrices of one row") {
  Words tiny = {"train", "--data",      place().data, "--n-layer",    "1", "--n-head",
                "1",     "--n-embd",    "2",          "--block-size", "4", "--batch-size",
                "60",    "--nodes",     "60",         "--steps",      "2", "--eval-batches",
                "1",     "--optimizer", "adamw"};
  output_of(tiny + Words{"--strategy", "fsdp", "--out", place() / "many"});
  CHECK(std::isfinite(last_validation("many")));
  Words narrow = {"train", "--data",   place().data, "--n-layer",    "3", "--n-head",
                  "1",     "--n-embd", "1",          "--block-size", "4", "--batch-size",
                  "6",     "--nodes",  "3",          "--steps",      "3"};
  output_of(narrow + Words{"--strategy", "fsdp", "--out", place() / "narrow-fsdp"});
  output_of(narrow + Words{"--strategy", "sharded", "--out", place() / "narrow-sharded"});
  CHECK(last_validation("narrow-fsdp") ==
        doctest::Approx(last_validation("narrow-sharded")).epsilon(1e-6));
}

TEST_CASE("ranks with documents of their own: the run goes on to the bit, exact strategies agree") {
  const std::string books = place() / "books";
  Words prepare = {"data", "prepare", "--out", books};
  for (const char* book : {"a", "b", "c", "d", "e", "f"}) {
    put_bytes(place() / book, some_text(4000) + std::string(1500, *book));
    prepare = prepare + Words{place() / book};
  }
  output_of(prepare);
  auto run = [&](const std::string& name, int steps, const Words& more) {
    return with(run_of(name, steps, more), "--data", books);
  };
  for (const std::string partition : {"by-document", "dirichlet:0.2"}) {
    for (const StrategyEntry& entry : strategy_list()) {
      const Words own = ranks(entry.name, 4) + Words{"--partition", partition};
      const std::string whole = partition + entry.name, part = whole + "-part";
      CAPTURE(whole);
      CHECK(contains(output_of(run(whole, 8, own)), "parts   " + partition + " over 4 nodes"));
      output_of(run(part, 5, own));
      output_of(going_on(part, 8));
      check_same_run(place() / part, place() / whole);
      if (entry.make()->own_weights()) continue;
      CHECK(last_validation(whole) ==
            doctest::Approx(last_validation(partition + "all_reduce")).epsilon(1e-5));
    }
  }
  output_of(run("together", 8, ranks("all_reduce", 4)));  // iid
  CHECK(last_validation("together") != last_validation("by-documentall_reduce"));
  output_of(run("everything", 2, {"--partition", "by-document"}));  // one rank
  // Four sequences for three ranks, after two had them.
  output_of(with(run("uneven", 4, ranks("all_reduce", 2) + Words{"--partition", "by_document"}),
                 "--batch-size", "4"));
  output_of(going_on("uneven", 8, {"--nodes", "3"}));
  CHECK(contains(read_file(place() / "uneven/config.toml"), "partition = \"by-document\""));
}

TEST_CASE("what ranks are refused is one line, and nothing is lost") {
  output_of(run_of("kept", 4, ranks("sharded", 2)));
  check_refused(run_of("kept", 4, ranks("sharded", 2)), {"kept", "--resume"});
  check_refused(going_on("kept", 8, {"--optimizer", "adamw"}), {"optimizer", "normuon", "adamw"});
  check_refused(going_on("kept", 8, {"--optimizer.neurons", "longer_side"}),
                {".v'", "resume with"});
  check_refused(going_on("kept", 8, ranks("sharded", 13)), {"batch_size", "13"});
  check_refused(going_on("kept", 8, {"--partition", "by-document"}), {"2 nodes", "only 1"});
  check_refused(going_on("kept", 8, {"--transport", "mpi", "--nodes", "2"}), {"mpi"});
  CHECK(load_checkpoint(place() / "kept").step == 4);
  output_of(going_on("kept", 8));
}

TEST_CASE("a process that was started as one rank of several is no run of its own") {
  output_of(run_of("alone", 2, {}));
  const auto before = files_below(place().folder.path());
  // As rank 0 of two; MPI itself would notice, but not what is one process.
  const std::map<std::string, std::map<std::string, std::string>> starters = {
      {"Open MPI",
       {{"OMPI_COMM_WORLD_RANK", "0"},
        {"OMPI_COMM_WORLD_SIZE", "2"},
        {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
        {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}},
      {"PMI", {{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}}},
      {"Slurm",
       {{"SLURM_STEP_ID", "0"},
        {"SLURM_PROCID", "0"},
        {"SLURM_NTASKS", "2"},
        {"SLURM_LOCALID", "0"},
        {"SLURM_JOB_NODELIST", "a"}}},
      {"torchrun",
       {{"RANK", "0"},
        {"WORLD_SIZE", "2"},
        {"LOCAL_RANK", "0"},
        {"LOCAL_WORLD_SIZE", "2"},
        {"MASTER_ADDR", "127.0.0.1"}}}};
  for (const auto& [starter, variables] : starters) {
    for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
    for (const Words& one : {Words{"--transport", "threads"}, {"--transport", "self"}})
      check_refused(run_of("new", 2, one), {one[1], starter + " has started 2"});
    check_refused({"compare", "--data", place().data, "--out", place() / "race", "--transport",
                   "threads", "--nodes", "2"},
                  {"threads", starter + " has started 2"});
    check_refused({"sample", place() / "alone"}, {"sample", starter + " has started 2"});
    check_refused({"data", "prepare", place() / "text.txt", "--out", place().data},
                  {"data", starter + " has started 2"});
    for (const auto& [name, value] : variables) unsetenv(name.c_str());
  }
  CHECK(files_below(place().folder.path()) == before);
}
