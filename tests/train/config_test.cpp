// tests/train/config_test.cpp - configuration files as others see them, and which of two wins.
#include "train/config.h"

#include <regex>

#include "nlohmann/json.hpp"
#include "tests/train/run_command.h"
#include "train/files.h"
#include "train/log.h"

using namespace murmur;

namespace {

namespace fs = std::filesystem;

// A file as python's tomllib reads it.
nlohmann::json read_by_python(const std::string& path) {
  TemporaryFolder folder;
  put_bytes(folder / "read.py",
            "import json, sys, tomllib\n"
            "json.dump(tomllib.load(open(sys.argv[1], 'rb')), open(sys.argv[2], 'w'))\n");
  const std::string copy = folder / "copy.toml", json = folder / "copy.json";
  fs::copy_file(path, copy);
  REQUIRE(std::system(
              ("python3 '" + (folder / "read.py") + "' '" + copy + "' '" + json + "'").c_str()) ==
          0);
  return nlohmann::json::parse(read_file(json));
}

}  // namespace

TEST_CASE("config.toml is TOML to others, whatever a folder is called") {
  Workplace place;
  for (const std::string name : {"d \"q\" x", "it's # \\ [a] = \xc3\xb6", "two\nlines\t\x01"}) {
    CAPTURE(name);
    const std::string data = place / name, run = place / "run of " + name;
    fs::rename(place.data, data);
    output_of(with(place.train("run of " + name, {"--steps", "1"}), "--data", data));
    const nlohmann::json read = read_by_python(run + "/config.toml");
    CHECK(read["data"] == data);
    CHECK(read["out"] == ".");
    CHECK(read["n_embd"] == 16);
    CHECK(read["min_lr"] == 0.05);
    CHECK(read["bias"] == true);
    CHECK(read["optimizer"]["name"] == "muon");
    CHECK(read["optimizer"]["lr"] == 0.02);
    CHECK(read["auxiliary"]["name"] == "adamw");
    CHECK(read["strategy"]["name"] == "local");
    output_of({"eval", run});
    output_of({"train", "--resume", "--out", run, "--steps", "2"});
    fs::rename(data, place.data);
  }
  check_refused(with(place.train("none"), "--data", place / "d\xff"), {"data", "UTF-8"});
}

TEST_CASE("every number comes back from a configuration file as it was") {
  TemporaryFolder folder;
  for (const double value : {0.1, 1e-8, 1.0 / 3, 123456789.125, 5e-324, 1e9}) {
    Config config;
    config.clip = value;
    config.strategy = "local";
    put_bytes(folder / "c.toml", to_toml(config, "."));
    CHECK(make_config(read_toml(folder / "c.toml")).clip == value);
    CHECK(read_by_python(folder / "c.toml")["clip"] == value);
  }
}

TEST_CASE("a run can be used from any working directory, and moved together with its data") {
  TemporaryFolder folder;
  fs::create_directories(folder / "there/elsewhere");
  put_bytes(folder / "there/text.txt", some_text());
  const Words small = {"--n-layer",    "1", "--n-head",     "1", "--n-embd", "8",
                       "--block-size", "8", "--batch-size", "2", "--steps",  "1"};
  {
    WorkingDirectory there(folder / "there");
    output_of({"data", "prepare", "text.txt", "--out", "data/some"});
    output_of(Words{"train", "--data", "data/some", "--out", "runs/a"} + small);
    CHECK(read_by_python("runs/a/config.toml")["data"] == "../../data/some");
    CHECK(value_of(read_toml("runs/a/config.toml"), "data") == "data/some");
    // With an absolute path it stays with the data, wherever the run goes.
    output_of(Words{"train", "--data", folder / "there/data/some", "--out", "runs/b"} + small);
    fs::rename("runs/b", "elsewhere/b");
    output_of({"eval", "elsewhere/b"});
    output_of(Words{"train", "--data", "data/some", "--out", folder / "there/runs/c"} + small);
    fs::rename("runs/c", "elsewhere/c");
    output_of({"eval", "elsewhere/c"});
    // A file's paths are seen from its folder.
    put_bytes("elsewhere/my.toml", "data = \"../data/some\"\nout = \"../runs/d/\"\n");
    output_of(Words{"train", "--config", "elsewhere/my.toml"} + small);
    CHECK(fs::exists("runs/d/log.jsonl"));
  }
  WorkingDirectory elsewhere(folder / "there/elsewhere");
  output_of({"eval", "../runs/a"});
  output_of({"train", "--resume", "--out", "../runs/a", "--steps", "2"});
  fs::rename(folder / "there", folder / "moved");
  output_of({"eval", folder / "moved/runs/a"});
  output_of({"train", "--resume", "--out", folder / "moved/runs/a", "--steps", "3"});
  CHECK(read_log(folder / "moved/runs/a/log.jsonl").size() == 3);
}

TEST_CASE("a preset or recipe that is named over a file wins, with all that it says") {
  const std::vector<Assignment> file = {
      {"preset", "nano"},          {"n_layer", "2"}, {"recipe", "demuon"},   {"optimizer", "muon"},
      {"optimizer.ns_steps", "7"}, {"clip", "3"},    {"strategy", "gossip"}, {"nodes", "4"}};
  Config same = make_config(over(file, {{"preset", "nano"}, {"recipe", "demuon"}}));
  CHECK(same.n_layer == 2);  // what the file has already
  CHECK(same.clip == 3);
  Config other = make_config(over(file, {{"preset", "baby"}, {"recipe", "dsgd"}}));
  CHECK(other.n_layer == 6);
  CHECK(other.n_embd == 384);
  CHECK(other.optimizer == "sgd");
  CHECK(other.optimizer_options.at("momentum") == "0");
  CHECK(!other.optimizer_options.contains("ns_steps"));
  CHECK(other.clip == 0);
  Config both = make_config(over(file, {{"preset", "baby"}, {"n_layer", "3"}}));
  CHECK(both.n_layer == 3);
  CHECK(both.n_embd == 384);
  Config named = make_config(over(file, {{"optimizer", "adamw"}, {"recipe", "none"}}));
  CHECK(named.optimizer_options.empty());  // ns_steps was muon's
}

TEST_CASE("of a flag that is given twice the last one counts, in every command") {
  const std::vector<Words> commands = {{"train"},
                                       {"compare"},
                                       {"synthetic"},
                                       {"sample"},
                                       {"eval"},
                                       {"export"},
                                       {"data", "prepare"},
                                       {"data", "info"},
                                       {"graph"},
                                       {"list"},
                                       {"bench", "step"},
                                       {"bench", "ops"},
                                       {"bench", "optimizers"},
                                       {"bench", "dist"},
                                       {"bench", "mixing"},
                                       {"launch"}};
  for (const Words& command : commands) {
    CAPTURE(joined(command));
    const std::string help = output_of(command + Words{"--help"});
    const std::regex with_value("\n  (-n,)?(--[a-z0-9._-]+)[^ ]* [^ ]");
    Words once;
    for (std::sregex_iterator at(help.begin(), help.end(), with_value), end; at != end; at++)
      once = once + Words{(*at)[2], "1"};
    CHECK((once.size() > 0 || command[0] == "list"));
    output_of(command + once + once + Words{"--help"});
  }
  Workplace place;
  const Words twice = place.train("twice", {"--steps", "9", "--optimizer.lr", "0.5", "--steps", "1",
                                            "--lr", "0.25", "--n_embd", "8"});
  output_of(twice);
  Config config = make_config(read_toml(place / "twice/config.toml"));
  CHECK(config.steps == 1);
  CHECK(config.n_embd == 8);
  CHECK(config.optimizer_options["lr"] == "0.25");
  const std::string counts =
      output_of({"bench", "dist", "--counts", "1,2", "--plan", "4", "--plan", "8,16", "--counts",
                 "0", "--networks", "nvlink4", "--n-layer", "1"});
  CHECK(!contains(counts, "\"ranks\": 4,"));
}

TEST_CASE(
    "the MLP's activation is any function of the list, with its constant, and belongs to the run") {
  Workplace place;
  auto loss_of = [&](const std::string& run, const std::string& activation) {
    output_of(place.train(run, {"--steps", "2", "--activation", activation}));
    return read_log(place / run + "/log.jsonl").back().train_loss;
  };
  const double own = loss_of("auto", "auto");
  CHECK(loss_of("gelu", "gelu") == own);
  const double leaky = loss_of("leaky", "leaky_relu:0.2");
  CHECK(leaky != own);
  CHECK(loss_of("leaky_as_it_is", "leaky_relu") != leaky);
  CHECK(loss_of("again", "leaky_relu:0.2") == leaky);
  const std::string run = place / "leaky";
  CHECK(contains(read_file(run + "/config.toml"), "activation = \"leaky_relu:0.2\""));
  output_of({"train", "--resume", "--out", run, "--steps", "3"});
  output_of({"eval", run});
  for (const char* other : {"gelu", "leaky_relu:0.1", "auto"}) {
    check_refused({"train", "--resume", "--out", run, "--steps", "4", "--activation", other},
                  {"activation", "leaky_relu:0.2"});
  }
  output_of({"train", "--resume", "--out", place / "auto", "--steps", "3", "--activation", "gelu"});
  check_refused(place.train("x", {"--activation", "geluu"}), {"activation", "'geluu'", "gelu"});
  check_refused(place.train("x", {"--activation", "gelu:2"}),
                {"activation", "gelu has no constant"});
  for (const char* number : {"", "x", "1x", "nan", "inf"})
    check_refused(place.train("x", {"--activation", std::string("leaky_relu:") + number}),
                  {"activation", "leaky_relu:0.1"});
}
