// tests/train/command_test.cpp - the murmur program from outside: what every command does, writes
// and prints, and that whatever a user gets wrong ends in one line and exit code 2.
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "dist/strategy.h"
#include "optim/registry.h"
#include "tests/train/run_command.h"
#include "train/config.h"
#include "train/list.h"
#include "train/safetensors.h"
#include "train/token_file.h"

using namespace murmur;
using nlohmann::json;

namespace {

std::vector<json> log_rows(const std::string& run) {
  std::vector<json> rows;
  std::ifstream in(run + "/log.jsonl");
  for (std::string line; std::getline(in, line);) rows.push_back(json::parse(line));
  return rows;
}

Words names_in(const std::map<std::string, std::string>& files) {
  Words names;
  for (const auto& [name, bytes] : files) names.push_back(name);
  return names;
}

std::string dashed(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

// One finished run that the tests look at and do not change.
struct Finished : Workplace {
  std::string run = folder / "run", printed;
  Finished() { printed = output_of(train("run", {"--steps", "6", "--eval-every", "4"})); }
};

const Finished& finished() {
  static const Finished one;
  return one;
}

// A copy of that run, to damage.
struct Damaged {
  TemporaryFolder folder{quick_place()};
  std::string run = folder / "run";
  std::string checkpoint = run + "/checkpoint/step-00000006/";
  Damaged() {
    std::filesystem::copy(finished().run, run, std::filesystem::copy_options::recursive);
  }
};

}  // namespace

// ------------------------------------------------------------------------------ what it is for

TEST_CASE("data prepare and data info tell what the folder holds") {
  const Finished& f = finished();
  CHECK(names_in(files_below(f.data)) ==
        Words{"data.json", "tokenizer.json", "train_000000.bin", "val_000000.bin"});
  std::string told = output_of({"data", "info", f.data});
  for (const char* part : {"byte tokenizer", "256 ids", "train", "val", "text.txt"}) {
    CAPTURE(part);
    CHECK(contains(told, part));
  }
  TemporaryFolder other{quick_place()};
  std::string prepared =
      output_of({"data", "prepare", f / "text.txt", f / "text.txt", "--out", other / "two",
                 "--tokenizer", "char", "--val-fraction", "0.25"});
  CHECK(contains(prepared, "char tokenizer"));
  CHECK(output_of({"data", "info", other / "two"}) == prepared);
}

TEST_CASE("data info shows how a partition deals the text out, as a run with it says") {
  const Finished& f = finished();
  TemporaryFolder other{quick_place()};
  Words prepare = {"data", "prepare", "--out", other / "two"};
  for (const char* name : {"long.txt", "short.txt", "last.txt"}) {
    put_bytes(other / name, some_text(*name == 'l' ? 9000 : 5000));
    prepare = prepare + Words{other / name};
  }
  output_of(prepare);
  const Words rule = {"--partition", "by-document", "--nodes", "2"};
  const std::string told =
      output_of(Words{"data", "info", other / "two", "--block-size", "16"} + rule);
  CHECK(contains(told, "3 documents in train, the largest: long.txt of 90"));
  CHECK(contains(told, " 1, 90"));
  CHECK(contains(told, " tokens from long.txt\n"));
  const size_t line = told.find("by-document over 2 nodes: 90");
  REQUIRE(line != told.npos);
  const Words run = f.train("two", rule + Words{"--steps", "1", "--strategy", "all_reduce"});
  CHECK(contains(output_of(with(run, "--data", other / "two")),
                 told.substr(line, told.find('\n', line) - line)));
  check_refused(Words{"data", "info", other / "two", "--partition", "by-documnt"},
                {"'by-documnt'", "'by-document'"});
  check_refused(Words{"data", "info", other / "two", "--partition", "by-document"},
                {"4 nodes", "only 3"});
  check_refused({"data", "info", other / "two", "--nodes", "0"}, {"--nodes"});
}

TEST_CASE("train writes the promised run folder") {
  const Finished& f = finished();
  auto files = files_below(f.run);
  Words names = {"checkpoint/best", "checkpoint/latest"};
  for (std::string step : {"step-00000004", "step-00000006"})  // the best at their time
    for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json"})
      names.push_back("checkpoint/" + step + "/" + file);
  CHECK(names_in(files) == names + Words{"config.toml", "log.jsonl", "loss.png", "tokenizer.json"});
  CHECK(files["checkpoint/best"].starts_with("step-00000006 "));
  CHECK(files["loss.png"].starts_with("\x89PNG"));
  CHECK(files["tokenizer.json"] == files_below(f.data)["tokenizer.json"]);
  CHECK(files["checkpoint/latest"] == "step-00000006\n");
  CHECK(json::parse(files["checkpoint/step-00000006/state.json"])["step"] == 6);
  SafetensorsFile model =
      SafetensorsFile::open(f.run + "/checkpoint/step-00000006/model.safetensors");
  CHECK(model.read("wte.weight").shape() == Shape{256, 16});
  CHECK(model.read("h.0.attn.c_attn.weight").shape() == Shape{48, 16});
  CHECK(contains(f.printed, "matrix 48x16"));  // the routing table
  CHECK(contains(f.printed, "step      6  validation loss"));
}

TEST_CASE("config.toml is the whole resolved configuration, and reads back as the same") {
  const Finished& f = finished();
  Config config = make_config(read_toml(f.run + "/config.toml"));
  CHECK(config.n_embd == 16);
  CHECK(config.steps == 6);
  CHECK(config.data == f.data);
  CHECK(to_toml(config, f.run) == files_below(f.run)["config.toml"]);
  std::map<std::string, std::string> listed;
  for (const Assignment& a : read_toml(f.run + "/config.toml")) listed[a.name] = a.value;
  Config expected;
  for (const Option& option : expected.options()) CHECK(listed.count(option.name) == 1);
  auto defaults = make_optimizer(config.optimizer);
  for (const Option& option : all_options(*defaults)) {
    CAPTURE(option.name);
    CHECK(listed["optimizer." + option.name] == option_text(option));
  }
  CHECK(listed["auxiliary.lr"] == "0.003");
}

TEST_CASE("log.jsonl has a row for every step with the promised keys") {
  std::vector<json> rows = log_rows(finished().run);
  REQUIRE(rows.size() == 6);
  for (size_t i = 0; i < rows.size(); i++) {
    CAPTURE(i);
    CHECK(rows[i]["step"] == i + 1);
    CHECK(rows[i]["tokens"] == 64 * (i + 1));
    for (const char* key : {"train_loss", "lr", "grad_norm", "step_ms", "tokens_per_s"}) {
      CAPTURE(key);
      REQUIRE(rows[i][key].is_number());
      CHECK(rows[i][key].get<double>() > 0);
    }
    CHECK(rows[i].contains("val_loss") == (i + 1 == 4 || i + 1 == 6));
    CHECK(rows[i].contains("bits_per_byte") == rows[i].contains("val_loss"));
  }
  CHECK(rows[0]["train_loss"].get<double>() == doctest::Approx(std::log(256.0)).epsilon(0.02));
  CHECK(rows[5]["bits_per_byte"].get<double>() ==
        doctest::Approx(rows[5]["val_loss"].get<double>() / std::log(2.0)));
}

TEST_CASE("eval repeats the last validation loss of the run") {
  const Finished& f = finished();
  json told = json::parse(output_of({"eval", f.run, "--json"}));
  json last = log_rows(f.run).back();
  CHECK(told["val_loss"].get<double>() == last["val_loss"].get<double>());
  CHECK(told["bits_per_byte"].get<double>() == last["bits_per_byte"].get<double>());
  CHECK(told["step"] == 6);
  CHECK(told["targets"] == TokenFile(f.data + "/val_000000.bin", 256).tokens().size() - 1);
  CHECK(contains(output_of({"eval", f.run, "--data", f.data}), "at step 6: validation loss"));
}

TEST_CASE("sample continues the prompt, and is a function of its seed") {
  const Finished& f = finished();
  auto drawn = [&](const Words& more) {
    return output_of(Words{"sample", f.run, "--tokens", "40"} + more);
  };
  std::string first = drawn({"--prompt", "river", "--seed", "1"});
  CHECK(first.starts_with("river"));
  CHECK(first.size() >= 5 + 40);  // bytes that are no character grow
  CHECK(drawn({"--prompt", "river", "--seed", "1"}) == first);
  CHECK(drawn({"--prompt", "river", "--seed", "2"}) != first);
  std::string two = drawn({"--prompt", "river", "--seed", "1", "--samples", "2"});
  CHECK(two.starts_with(first));
  CHECK(contains(two, "\n---\n"));
  CHECK(drawn({"--prompt", "a", "--temperature", "0"}) ==
        drawn({"--prompt", "a", "--top-k", "1", "--seed", "9"}));
  CHECK(output_of({"sample", f.run, "--prompt", "a", "--tokens", "0"}) == "a\n");
}

TEST_CASE("list prints every kind as Markdown and as JSON") {
  for (const std::string& kind : list_kinds()) {
    CAPTURE(kind);
    json array = json::parse(output_of({"list", kind, "--json"}));
    REQUIRE(array.is_array());
    CHECK(!array.empty());
    std::string markdown = output_of({"list", kind});
    CHECK(markdown.starts_with("| name |"));
    CHECK(size_t(std::count(markdown.begin(), markdown.end(), '\n')) == array.size() + 2);
    for (const json& object : array) {
      for (const char* key : {"name", "summary"}) {
        REQUIRE(object.contains(key));
        REQUIRE(object[key].is_string());
        CHECK(!object[key].get<std::string>().empty());
      }
      CHECK(contains(markdown, "| " + object["name"].get<std::string>() + " |"));
    }
  }
}

TEST_CASE("train --help names every setting with its default") {
  std::string help = output_of({"train", "--help"});
  Config config;
  for (const Option& option : config.options()) {
    CAPTURE(option.name);
    std::string text = option_text(option);
    size_t at = help.find("\n  --" + dashed(option.name));
    REQUIRE(at != help.npos);
    std::string line = help.substr(at + 1, help.find('\n', at + 1) - at - 1);
    CAPTURE(line);
    bool shown = contains(line, "=" + text) || contains(line, "[" + text + "]");  // CLI11 2.4
    CHECK((text.empty() || shown));
  }
  for (const OptimizerEntry& entry : optimizer_list()) {
    auto optimizer = entry.make();
    for (const Option& option : all_options(*optimizer)) {
      CAPTURE(option.name);
      CHECK(contains(help, "--optimizer." + dashed(option.name)));
      CHECK(contains(help, "--auxiliary." + dashed(option.name)));
    }
  }
  CHECK(contains(help, "--resume"));
  CHECK(contains(output_of({"--help"}), "sample"));
  CHECK(!output_of({"--version"}).empty());
}

TEST_CASE("flags, a TOML file and a preset set the same things; flags win") {
  const Finished& f = finished();
  TemporaryFolder folder{quick_place()};
  put_bytes(folder / "c.toml",
            "n_layer = 1\nn_head = 2\nn_embd = 16\nblock_size = 16\nbatch_size = 4\nsteps = 3\n"
            "seed = 5\n[optimizer]\nname = \"adamw\"\nbeta1 = 0.8\n");
  output_of({"train", "--config", folder / "c.toml", "--data", f.data, "--out", folder / "run",
             "--steps", "2", "--optimizer.beta2", "0.9", "--lr", "0.004"});
  Config config = make_config(read_toml(folder / "run/config.toml"));
  CHECK(config.steps == 2);
  CHECK(config.seed == 5);
  CHECK(config.optimizer == "adamw");
  CHECK(config.optimizer_options["beta1"] == "0.8");
  CHECK(config.optimizer_options["beta2"] == "0.9");
  CHECK(config.optimizer_options["lr"] == "0.004");
}

TEST_CASE("bench step prints the promised numbers") {
  Words words = {"bench",     "step", "--preset", "nano", "--n-layer",    "1", "--n-embd",     "16",
                 "--n-head",  "2",    "--dtype",  "fp32", "--batch-size", "2", "--block-size", "8",
                 "--threads", "1",    "--steps",  "3",    "--json"};
  json told = json::parse(output_of(words));
  for (const char* key :
       {"tokens_per_s", "step_ms", "flops_per_token", "gflops", "peak_bytes", "state_bytes"}) {
    CAPTURE(key);
    REQUIRE(told[key].is_number());
    CHECK(told[key].get<double>() > 0);
  }
  CHECK(told["batch_size"] == 2);
  CHECK(told["block_size"] == 8);
  CHECK(told["threads"] == 1);
  REQUIRE(told["ops"].is_array());
  CHECK(told["ops"].size() > 5);
  for (const json& row : told["ops"]) {
    CHECK(row["name"].is_string());
    CHECK(row["ms"].is_number());
  }
}

TEST_CASE("bench dist counts what every strategy sends, beside its plan") {
  const Words words = {"bench",
                       "dist",
                       "--n-layer",
                       "1",
                       "--n-embd",
                       "16",
                       "--n-head",
                       "2",
                       "--batch-size",
                       "3",
                       "--block-size",
                       "8",
                       "--counts",
                       "2,3",
                       "--plan",
                       "2,64",
                       "--strategy",
                       "local_sgd",
                       "--networks",
                       "ethernet_1g,nvlink4",
                       "--tflops",
                       "100",
                       "--strategy.inner_steps",
                       "2"};
  json told = json::parse(output_of(words));
  CHECK(told["tflops"] == 100);
  CHECK(told["networks"].size() == 2);
  size_t strategies = strategy_list().size() - 1;  // local sends nothing
  REQUIRE(told["counted"].size() == 2 * strategies);
  for (const json& row : told["counted"]) {
    CAPTURE(row.dump());
    for (const char* key : {"bytes", "messages", "rounds"}) CHECK(row[key]["ratio"] == 1);
    CHECK(row["period"] == (row["strategy"] == "local_sgd" ? 2 : 1));
    CHECK(row["memory_bytes"]["largest"] > 0);
    CHECK(row["bytes_per_parameter_and_rank"]["matrices"] > 0);
    CHECK(row["orthogonalization"]["busiest_to_least_possible"] > 0.999);
  }
  REQUIRE(told["planned"].size() == 2 * strategies);
  for (const json& row : told["planned"]) {
    CAPTURE(row.dump());
    const json &slow = row["networks"]["ethernet_1g"], &fast = row["networks"]["nvlink4"];
    CHECK(slow["exchange_ms"] > fast["exchange_ms"]);
    CHECK(fast["total_ms"].get<double>() ==
          doctest::Approx(fast["exchange_ms"].get<double>() +
                          row["orthogonalization_ms"].get<double>()));
  }
  check_refused({"bench", "dist", "--networks", "ethernet_1g,nvlnk4"}, {"'nvlnk4'", "'nvlink4'"});
  check_refused({"bench", "dist", "--counts", "2,many"}, {"--counts"});
  check_refused({"bench", "dist", "--counts", "-1"}, {"--counts"});
  check_refused({"bench", "dist", "--tflops", "-1"}, {"--tflops"});
  check_refused({"bench", "dist", "--batch-size", "2", "--counts", "3"},
                {"batch_size: 2", "3 ranks"});
}

TEST_CASE("bench mixing sets mixing beside the memory of this machine") {
  json told =
      json::parse(output_of({"bench", "mixing", "--mib", "1", "--rounds", "3", "--threads", "1"}));
  CHECK(told["threads"] == 1);
  CHECK(told["bytes"] == 1 << 20);
  std::map<std::string, int> count;
  for (const json& row : told["rows"]) {
    CAPTURE(row.dump());
    std::string op = row["op"];
    count[op]++;
    CHECK(row["gb_s"] > 0);
    CHECK(row.contains("of_triad") == (op != "triad"));
    if (op == "mix") count[row["wire"].get<std::string>()] += row["neighbours"].get<int>();
  }
  CHECK(count == std::map<std::string, int>{{"triad", 1},
                                            {"read", 1},
                                            {"mix", 8},
                                            {"quantize", 1},
                                            {"dequantize", 1},
                                            {"fp32", 13},
                                            {"bf16", 13}});
  check_refused({"bench", "mixing", "--mib", "0"}, {"--mib"});
  check_refused({"bench", "mixing", "--rounds", "many"}, {"--rounds"});
}

// ---------------------------------------------------------------------------------- bad input

TEST_CASE("words that are no command or flag name the nearest") {
  check_refused({}, {"command", "train"});
  check_refused({"trian"}, {"'trian'", "'train'"});
  check_refused({"smaple", "x"}, {"'smaple'", "'sample'"});
  check_refused({"data"}, {"prepare", "info"});
  check_refused({"data", "prepair"}, {"'prepair'", "'prepare'"});
  check_refused({"bench", "stap"}, {"'stap'", "'step'"});
  check_refused({"--versoin"}, {"--versoin", "--version"});
  check_refused({"train", "--batchsize", "3"}, {"--batchsize", "--batch-size"});
  check_refused({"train", "--stepz=3"}, {"--stepz", "--steps"});
  check_refused({"train", "--optimizer.momentun", "1"}, {"--optimizer.momentun", "momentum"});
  check_refused({"train", "nano"}, {"'nano'"});
  check_refused({"sample", "x", "--tokenz", "1"}, {"--tokenz", "--tokens"});
  check_refused({"eval", "x", "--jsno"}, {"--jsno", "--json"});
  check_refused({"bench", "step", "--dtipe", "bf16"}, {"--dtipe", "--dtype"});
  check_refused({"sample"}, {"run", "required"});
  check_refused({"data", "prepare", "x"}, {"--out", "required"});
  check_refused({"train", "--steps"}, {"--steps"});
}

TEST_CASE("values of the wrong kind or out of range are refused") {
  const Finished& f = finished();
  auto refused = [&](const Words& flags, const Words& parts) {
    check_refused(f.train("none") + flags, parts);
    CHECK(!std::filesystem::exists(f / "none"));
  };
  refused({"--accumulation", "5"}, {"batch_size", "4", "5"});
  refused({"--accumulation", "0"}, {"accumulation", "'0'"});
  auto instead = [&](const std::string& flag, const std::string& value, const Words& parts) {
    check_refused({"train", "--data", f.data, "--out", f / "none", flag, value}, parts);
    CHECK(!std::filesystem::exists(f / "none"));
  };
  instead("--batch-size", "0", {"batch_size", "'0'"});
  instead("--steps", "-5", {"steps", "'-5'"});
  instead("--steps", "many", {"steps", "'many'", "whole number"});
  instead("--steps", "1.5", {"steps", "'1.5'"});
  instead("--steps", "99999999999999999999", {"steps"});
  instead("--steps", "", {"steps"});
  instead("--lr", "fast", {"lr", "'fast'", "number"});
  instead("--lr", "-1", {"lr", "'-1'"});
  instead("--lr", "nan", {"lr", "'nan'"});
  instead("--clip", "inf", {"clip", "'inf'"});
  instead("--bias", "maybe", {"bias", "true or false"});
  instead("--n-layer", "0", {"n_layer", "'0'"});
  instead("--n-head", "3", {"n_embd", "128", "3"});
  instead("--seed", "-1", {"seed", "'-1'"});
  instead("--partition", "by-documnt", {"partition", "'by-documnt'", "'by-document'"});
  instead("--partition", "dirichlet", {"partition", "'dirichlet'", "dirichlet:0.1"});
  instead("--nodes", "-2", {"nodes", "'-2'"});
  refused({"--nodes", "2", "--transport", "self"}, {"nodes", "2", "threads"});
  refused({"--nodes", "5"}, {"batch_size", "4", "5"});
  refused({"--strategy", "fdsp"}, {"strategy", "fsdp"});
  refused({"--strategy", "quasi_global", "--cuda-graph", "true"}, {"cuda_graph", "quasi_global"});
  refused({"--strategy.outer_lr", "1"}, {"strategy.outer_lr", "local", "no settings"});
  instead("--dtype", "fp16", {"dtype", "'fp16'", "bf16"});
  instead("--vocab-size", "100", {"vocab_size", "100", "256"});
  instead("--device", "cuda", {"device", "CUDA", "cpu"});
  instead("--optimizer", "muonn", {"'muonn'", "muon"});
  instead("--auxiliary", "adam", {"'adam'", "adamw"});
  instead("--auxiliary", "muon", {"muon", "matrices only"});
  instead("--schedule", "cosin", {"'cosin'", "cosine"});
  instead("--preset", "nanoo", {"'nanoo'", "'nano'"});
  instead("--strategy", "locall", {"'locall'", "local"});
  instead("--transport", "sel", {"'sel'", "self"});
  instead("--optimizer.scale", "origina", {"scale", "original"});
  instead("--optimizer.momentum", "2", {"momentum", "'2'"});
  instead("--optimizer.beta1", "0.5", {"optimizer.beta1", "no such setting"});
  check_refused(Words{"train", "--data", f.data, "--out", f / "none", "--arch", "modern"} +
                    Words{"--n-embd", "12", "--n-head", "4"},
                {"n_head", "even", "3"});
}

TEST_CASE("settings of sample are checked") {
  const Finished& f = finished();
  auto refused = [&](const Words& flags, const Words& parts) {
    check_refused(Words{"sample", f.run} + flags, parts);
  };
  refused({"--tokens", "-1"}, {"--tokens", "'-1'"});
  refused({"--tokens", "x"}, {"--tokens", "'x'"});
  refused({"--temperature", "-0.5"}, {"--temperature", "'-0.5'"});
  refused({"--temperature", "nan"}, {"--temperature", "'nan'"});
  refused({"--top-k", "-3"}, {"--top-k", "'-3'"});
  refused({"--top-k", "2.5"}, {"--top-k"});
  refused({"--samples", "0"}, {"--samples", "'0'"});
  refused({"--seed", "-1"}, {"--seed"});
  refused({"--prompt", ""}, {"prompt", "empty"});
  refused({"--step", "newest"}, {"--step", "'newest'"});
  refused({"--step", "5"}, {"step-00000005", "no such checkpoint", "step-00000006"});
}

TEST_CASE("configuration files that are wrong are refused") {
  const Finished& f = finished();
  TemporaryFolder folder{quick_place()};
  auto refused = [&](const std::string& toml, const Words& parts) {
    put_bytes(folder / "c.toml", toml);
    check_refused(
        {"train", "--config", folder / "c.toml", "--data", f.data, "--out", folder / "run"}, parts);
    CHECK(!std::filesystem::exists(folder / "run"));
  };
  refused("seed = 1\n  n_lairs = 3\n", {"c.toml:2:3: n_lairs", "'n_layer'"});
  refused("steps = \"many\"\n", {"c.toml:1:1: steps", "'many'"});
  refused("\nsteps = [1, 2]\n", {"c.toml:2:1: steps", "one value"});
  refused("seed = 1979-05-27\n", {"c.toml:1:1: seed", "one value"});
  refused("[optimizer]\nmomentun = 0.5\n",
          {"c.toml:2:1: optimizer.momentun", "'optimizer.momentum'"});
  refused("[optimiser]\nlr = 0.5\n", {"c.toml:2:1: optimiser.lr", "'optimizer.lr'"});
  refused("optimizer = \"muonn\"\n", {"c.toml:1:1: optimizer", "'muonn'", "'muon'"});
  refused("optimizer.name = \"muonn\"\n", {"c.toml:1:11: optimizer", "'muonn'", "'muon'"});
  refused("lr = -1\n", {"c.toml:1:1: optimizer.lr", "'-1'"});
  refused("seed = 1\nsteps\n", {"c.toml:2:6"});
  refused("data = \"open\n", {"c.toml:1:"});
  refused("edges = \"a\\u0000b\"\n", {"c.toml:1:1: edges", "zero byte"});
  refused("recipe = \"nobody\"\n", {"c.toml:1:1: recipe", "'nobody'"});
  // As it was written before an optimizer was a table with a name.
  refused("optimizer = \"muon\"\n\n[optimizer]\nlr = 0.1\n", {"c.toml:3:", "[optimizer]", "name"});
  check_refused({"train", "--config", folder / "absent.toml"}, {"absent.toml"});
  check_refused({"train", "--config", folder.path()}, {folder.path()});
}

TEST_CASE("text that cannot be prepared is refused, and what was prepared stays") {
  const Finished& f = finished();
  auto before = files_below(f.data);
  TemporaryFolder folder{quick_place()};
  put_bytes(folder / "empty.txt", "");
  put_bytes(folder / "short.txt", "ab");
  put_bytes(folder / "latin1.txt", "caf\xe9 and more text");
  auto refused = [&](const Words& words, const Words& parts) {
    check_refused(Words{"data", "prepare", "--out", f.data} + words, parts);
  };
  refused({folder / "empty.txt"}, {"empty"});
  refused({folder / "short.txt"}, {"too short"});
  refused({folder / "absent.txt"}, {"absent.txt", "No such file"});
  refused({folder.path()}, {folder.path()});
  refused({folder / "latin1.txt", "--tokenizer", "char"}, {"latin1.txt", "0xe9", "offset 3"});
  for (const char* fraction : {"0", "1", "2", "-0.1", "nan"})
    refused({f / "text.txt", "--val-fraction", fraction}, {"fraction"});
  refused({f / "text.txt", "--val-fraction", "some"}, {"--val-fraction", "some"});
  refused({f / "text.txt", "--tokenizer", "chat"}, {"'chat'", "'char'"});
  CHECK(files_below(f.data) == before);
}

TEST_CASE("a data folder that is absent, foreign or damaged is refused by every command") {
  const Finished& f = finished();
  TemporaryFolder folder{quick_place()};
  std::string data = folder / "data", train_shard = data + "/train_000000.bin";
  auto refused = [&](const Words& parts) {
    check_refused({"data", "info", data}, parts);
    check_refused({"train", "--data", data, "--out", folder / "run", "--steps", "1"}, parts);
    check_refused({"eval", f.run, "--data", data}, parts);
    CHECK(!std::filesystem::exists(folder / "run"));
  };
  refused({data});
  std::filesystem::create_directory(data);
  refused({data, "train"});
  std::filesystem::copy(f.data, data);
  std::string whole = files_below(data)["train_000000.bin"];

  std::string shard = whole;
  shard[0] ^= 1;
  put_bytes(train_shard, shard);
  refused({train_shard, "magic"});
  put_bytes(train_shard, whole.substr(0, whole.size() - 7));
  refused({train_shard, "truncated"});
  put_bytes(train_shard, whole.substr(0, 100));
  refused({train_shard, "too short"});
  put_bytes(train_shard, "");
  refused({train_shard, "too short"});
  shard = whole;
  shard[1024 + 2 * 50 + 1] = 1;  // the high byte of token 50
  put_bytes(train_shard, shard);
  refused({train_shard, "position 50", "vocabulary of 256"});
  put_bytes(train_shard, whole);

  put_bytes(data + "/tokenizer.json", "{\"tokenizer\": \"bite\"}");
  refused({"tokenizer.json", "'bite'", "'byte'"});
  put_bytes(data + "/tokenizer.json", "{");
  refused({"tokenizer.json"});
  std::filesystem::remove(data + "/tokenizer.json");
  refused({data, "prepare the data again"});

  shard = whole;  // nothing but the checksum tells
  shard[1024 + 2 * 50] = char(shard[1024 + 2 * 50] ^ 1);
  std::filesystem::copy_file(f.data + "/tokenizer.json", data + "/tokenizer.json");
  put_bytes(train_shard, shard);
  check_refused({"data", "info", data}, {"train_000000.bin", "data.json"});
}

TEST_CASE("a block longer than the data is refused") {
  const Finished& f = finished();
  check_refused({"train", "--data", f.data, "--out", f / "none", "--block-size", "30000"},
                {"block size", "30000"});
  CHECK(!std::filesystem::exists(f / "none"));
}

TEST_CASE("a folder that is no run is refused") {
  const Finished& f = finished();
  for (const char* command : {"sample", "eval"}) {
    check_refused({command, f / "absent"}, {f / "absent", "no run"});
    check_refused({command, f.data}, {f.data, "no run"});
    check_refused({command, f.run + "/config.toml"}, {"no run"});
  }
  Damaged d;
  std::filesystem::remove_all(d.run + "/checkpoint");
  for (const char* command : {"sample", "eval"})
    check_refused({command, d.run}, {d.run, "no checkpoint"});
}

TEST_CASE("a damaged checkpoint is refused by train --resume, sample and eval") {
  const Finished& f = finished();
  Damaged d;
  auto refused = [&](const Words& parts) {
    auto before = files_below(d.run);
    check_refused({"train", "--resume", "--out", d.run, "--steps", "8"}, parts);
    check_refused({"sample", d.run}, parts);
    check_refused({"eval", d.run}, parts);
    CHECK(files_below(d.run) == before);
  };
  std::map<std::string, std::string> whole = files_below(d.checkpoint);
  for (const auto& [name, bytes] : whole) {
    std::string path = d.checkpoint + name;
    put_bytes(path, bytes.substr(0, bytes.size() / 2));
    refused({path});
    put_bytes(path, "");
    refused({path});
    for (size_t at : {size_t(3), bytes.size() / 3, bytes.size() - 2}) {
      std::string flipped = bytes;
      flipped[at] = char(flipped[at] ^ 4);
      put_bytes(path, flipped);
      refused({path});
    }
    std::filesystem::remove(path);
    refused({path});
    put_bytes(path, bytes);
  }
  CHECK(files_below(d.run) == files_below(f.run));
  output_of({"eval", d.run});
}

TEST_CASE("a damaged config.toml or tokenizer.json of a run is refused") {
  Damaged d;
  put_bytes(d.run + "/tokenizer.json", "nonsense");
  check_refused({"sample", d.run}, {d.run + "/tokenizer.json"});
  std::filesystem::remove(d.run + "/tokenizer.json");
  check_refused({"sample", d.run}, {d.run + "/tokenizer.json"});
  put_bytes(d.run + "/config.toml", "n_embd = 32\n");
  check_refused({"eval", d.run}, {"wte.weight", "use the settings the run began with"});
  put_bytes(d.run + "/config.toml", "n_embd 32\n[[[");
  check_refused({"eval", d.run}, {});
}

TEST_CASE("resuming as another model or with another optimizer is refused, and nothing is lost") {
  Damaged d;
  auto before = files_below(d.run);
  auto refused = [&](const Words& flags, const Words& parts) {
    check_refused(Words{"train", "--resume", "--out", d.run, "--steps", "9"} + flags, parts);
    CHECK(files_below(d.run) == before);
  };
  refused({"--n-embd", "32"}, {"step-00000006", "(", "the model wants"});
  refused({"--n-layer", "2"}, {"step-00000006", "h.1."});
  refused({"--bias", "false"}, {"step-00000006", "parameters"});
  refused({"--arch", "modern"}, {"step-00000006"});
  refused({"--block-size", "32"}, {"step-00000006", "wpe.weight"});
  refused({"--vocab-size", "300"}, {"step-00000006", "wte.weight"});
  refused({"--auxiliary", "sgd", "--auxiliary.momentum", "0.9"}, {"auxiliary"});
}

TEST_CASE("a folder that already holds a run is not overwritten") {
  Damaged d;
  auto before = files_below(d.run);
  check_refused(finished().train("ignored", {"--out", d.run}), {d.run, "--resume"});
  Words words = {"train", "--data", finished().data, "--out", d.run, "--steps", "3"};
  check_refused(words, {d.run, "6 steps", "--resume"});
  CHECK(files_below(d.run) == before);
}

TEST_CASE("an --out that cannot be written is refused") {
  const Finished& f = finished();
  TemporaryFolder folder{quick_place()};
  put_bytes(folder / "file", "precious");
  for (const std::string& out : {folder / "file", folder / "file/run", std::string("/proc/run")}) {
    CAPTURE(out);
    std::string named = out.substr(0, out.find("/run"));  // the part of the path that is wrong
    check_refused({"train", "--data", f.data, "--out", out, "--steps", "1"}, {named});
    check_refused({"data", "prepare", f / "text.txt", "--out", out}, {named});
  }
  CHECK(files_below(folder.path())["file"] == "precious");
}

TEST_CASE("a prompt with a character the char tokenizer has never seen is refused") {
  const Finished& f = finished();
  TemporaryFolder folder{quick_place()};
  output_of({"data", "prepare", f / "text.txt", "--tokenizer", "char", "--out", folder / "data"});
  Words words = f.train("ignored", {"--steps", "2"});
  words[2] = folder / "data", words[4] = folder / "run";
  output_of(words);
  CHECK(output_of({"sample", folder / "run", "--prompt", "stone", "--tokens", "9"}).size() ==
        5 + 9 + 1);
  check_refused({"sample", folder / "run", "--prompt", "st\xc3\xb6ne"}, {"\xc3\xb6", "byte 2"});
  check_refused({"sample", folder / "run", "--prompt", "st\xff"}, {"0xff"});
  check_refused({"eval", folder / "run", "--data", f.data}, {f.data, "256"});
}
