// tests/train/compare_test.cpp - a race is fair, can stop anywhere, and claims no more than it saw.
#include "train/compare.h"

#include <unistd.h>  // usleep

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/train/run_command.h"
#include "train/checkpoint.h"
#include "train/compare_report.h"
#include "train/trainer.h"

using namespace murmur;
using nlohmann::json;

namespace {

const Workplace& place() {
  static const Workplace one;
  return one;
}

// A race of the smallest useful models, into `name`.
Words race(const std::string& name, const Words& more) {
  return Words{"compare",
               "--data",
               place().data,
               "--out",
               place() / name,
               "--n-layer",
               "2",
               "--n-head",
               "2",
               "--n-embd",
               "16",
               "--block-size",
               "16",
               "--batch-size",
               "4",
               "--threads",
               "1",
               "--warmup",
               "2",
               "--eval-batches",
               "2",
               "--checkpoint-every",
               "3"} +
         more;
}

const Words kTwo = {
    "--optimizers", "adamw, muon:momentum=0.9", "--steps", "8", "--seeds", "2", "--lrs", "1,4"};

json result_of(const std::string& name) {
  return json::parse(files_below(place() / name).at("compare.json"));
}

// Without what a clock says.
json timeless(json result) {
  for (json& method : result["methods"]) CHECK(method.erase("ms_per_step") == 1);
  return result;
}

int runs_in(const std::string& printed) {
  int found = 0;
  for (size_t at = 0; (at = printed.find(": validation loss", at)) != printed.npos; at++) found++;
  return found;
}

// The race that the tests look at; each changes a copy.
struct Finished {
  std::string printed = output_of(race("whole", kTwo + Words{"--json", place() / "own.json"}));
};
const Finished& finished() {
  static const Finished one;
  return one;
}

void copy_race(const std::string& name) {
  finished();
  std::filesystem::copy(place() / "whole", place() / name,
                        std::filesystem::copy_options::recursive);
}

// Outcomes as a race would bring them: validations after 10, 20, .. steps.
Entrant entrant(const std::string& text, const std::vector<std::vector<double>>& losses) {
  Entrant e{.contender = parse_contenders(text, "")[0], .rate = 0.1};
  for (size_t seed = 0; seed < losses.size(); seed++) {
    RunOutcome run{.seed = int64_t(seed), .val_loss = losses[seed].back(), .state_bytes = 7};
    for (size_t i = 0; i < losses[seed].size(); i++) {
      run.steps.push_back(10 * double(i + 1));
      run.step_ms.push_back(double(i));
    }
    run.losses = losses[seed];
    e.runs.push_back(run);
  }
  return e;
}

}  // namespace

// ------------------------------------------------------------------------------- what was typed

TEST_CASE("contenders: names, settings, rates, and a folder that does not depend on the rate") {
  auto all = parse_contenders(
      "adamw, muon , muon:momentum=0.9;lr=0.04|0.01 | 0.02,muon:auxiliary=sgd;auxiliary.lr=0.1",
      "0.1,1,3");
  REQUIRE(all.size() == 4);
  CHECK(all[0].label == "adamw");
  CHECK(all[0].optimizer == "adamw");
  CHECK(all[0].settings.empty());
  CHECK(all[0].rates == std::vector<double>{0.0001, 0.001, 0.003});  // not 0.00030000000000000003
  CHECK(all[1].label == "muon");
  CHECK(all[2].label == "muon:momentum=0.9");
  CHECK(all[2].settings == std::map<std::string, std::string>{{"optimizer.momentum", "0.9"}});
  CHECK(all[2].rates == std::vector<double>{0.01, 0.02, 0.04});
  CHECK(all[2].folder == "muon_momentum=0.9");
  CHECK(all[3].folder == "muon_auxiliary=sgd_auxiliary.lr=0.1");
  Config config = contender_config({{"steps", "7"}, {"eval_every", "2"}}, all[2], 0.04);
  CHECK(config.steps == 7);
  CHECK(config.optimizer == "muon");
  CHECK(config.optimizer_options.at("momentum") == "0.9");
  CHECK(make_routes(config)[0].use.optimizer->learning_rate == 0.04);
  CHECK(parse_contenders("adamw", "")[0].rates.size() == 1);
}

TEST_CASE("contenders: every mistake is one line that names it") {
  auto refused = [](const std::string& text, const std::string& factors, const Words& parts) {
    std::string message = input_error_of([&] { parse_contenders(text, factors); });
    CAPTURE(text);
    CAPTURE(message);
    CHECK(message != "");
    CHECK(!contains(message, "\n"));
    for (const std::string& part : parts) CHECK(contains(message, part));
  };
  refused("adamm", "", {"'adamm'", "'adamw'"});
  refused("muon:momentm=1", "", {"'muon:momentm=1'", "momentm", "momentum"});
  refused("muon:momentum=7", "", {"'7'", "0 to 1"});
  refused("muon:momentum", "", {"'momentum'", "setting=value"});
  refused("muon:momentum=0.1;momentum=0.2", "", {"'momentum'", "twice"});
  refused("muon:auxiliary=adamm", "", {"'adamm'"});
  refused("muon,,adamw", "", {"missing"});
  refused("", "", {"missing"});
  refused("muon:lr=fast", "", {"lr", "'fast'"});
  refused("muon:lr=0.1|0.1", "", {"twice"});
  refused("muon:lr=0.1|1e9", "", {"'1000000000'", "1000"});
  refused("muon", "1,two", {"lrs", "'two'"});
  refused("muon", "0,1", {"lrs", "'0'", "above 0"});
  refused("muon,adamw,muon", "", {"'muon'", "twice"});
  refused("muon:lr=0.01,muon:lr=0.02", "", {"'muon'", "twice", "lr=0.01|0.02"});
  refused("muon:lr=0.1;lr=0.2", "", {"'lr'", "twice"});
  refused("muon", "1e-310", {"lrs", "'1e-310'"});
  refused("muon:auxiliary=normuon", "", {"auxiliary", "normuon", "matrices only"});
  refused("muon:lr=0.1|0.2,adamw", "", {"2 learning rates", "'adamw' 1", "equally many"});
  refused("muon:lr=0.1,adamw", "1,2", {"1 learning rate,", "'adamw' 2"});
}

TEST_CASE("compare refuses what would make a race unfair or senseless") {
  auto refused = [](const Words& flags, const Words& parts) {
    check_refused(race("refused", flags), parts);
    CHECK(!std::filesystem::exists(place() / "refused"));
  };
  refused({"--optimizers", "muon,adamm"}, {"'adamm'", "'adamw'"});
  refused({"--lr", "0.1"}, {"lr", "--optimizers", "--lrs"});
  refused({"--optimizer.momentum", "0.1"}, {"optimizer.momentum", "'name:momentum=0.1'"});
  refused({"--optimizer", "muon"}, {"--optimizers"});
  refused({"--seeds", "0"}, {"--seeds"});
  refused({"--tune-seeds", "4"}, {"tune-seeds", "4", "3 seeds"});
  refused({"--target", "low"}, {"--target", "low"});
  refused({"--json", place() / "absent/file.json"}, {"json", "absent"});
  refused({"--json", place().data}, {"json: ", "Is a directory"});
  refused({"--seeds", "99999999999999999999"}, {"--seeds"});
  refused({"--optimizers", "adamw,soap", "--cuda-graph", "true"}, {"cuda_graph", "soap"});
  refused({"--optimizers", "adamw,muonclip", "--arch", "modern"}, {"muonclip", "arch"});
  refused({"--n-head", "5"}, {});
  refused({"--optimizer-s", "muon"}, {"--optimizers"});
}

// --------------------------------------------------------------------------------- the arithmetic

TEST_CASE("significance: the test vectors of the track-3 rule") {
  CHECK(track3_score(-0.0002, 50, 20, 20) == doctest::Approx(0.00648).epsilon(1e-3));
  CHECK(track3_score(0, 15, 16, 10) == doctest::Approx(0.00167).epsilon(5e-3));
  CHECK(track3_score(-0.0007, 40, 10, 16) == doctest::Approx(0.0027).epsilon(1e-2));
  CHECK(track3_score(-0.0002, 50, 20, 20) >= kTrack3Threshold);
  CHECK(track3_score(0, 15, 16, 10) < kTrack3Threshold);
  CHECK(track3_score(-0.0007, 40, 10, 16) < kTrack3Threshold);
  CHECK(track3_score(0.1, 200, 1, 1, 0.05) == doctest::Approx(0.2 / std::sqrt(2.0)));
  CHECK(track3_threshold(kTrack3Sigma) == doctest::Approx(kTrack3Threshold));
  CHECK(track3_threshold(0.013) == doctest::Approx(0.04));
}

TEST_CASE("significance: means, spreads and slopes") {
  std::vector<double> values = {2, 4, 4, 4, 5, 5, 7, 9}, one = {3};
  CHECK(mean(values) == 5);
  CHECK(median(values) == 4.5);
  CHECK(median(std::vector<double>{3, 1, 2}) == 2);
  CHECK(standard_deviation(values) == doctest::Approx(std::sqrt(32.0 / 7)));
  CHECK(standard_error(values) == doctest::Approx(std::sqrt(32.0 / 7 / 8)));
  CHECK(std::isnan(standard_deviation(one)));
  CHECK(std::isnan(mean(std::vector<double>())));
  CHECK(std::isnan(median(std::vector<double>())));
  CHECK(pooled_deviation({{1, 3}, {10, 10, 10}, {5}}) == doctest::Approx(std::sqrt(2.0 / 3)));
  CHECK(std::isnan(pooled_deviation({{1}, {2}})));
  CHECK(slope(std::vector<double>{1, 2, 3}, std::vector<double>{5, 3, 1}) == doctest::Approx(-2));
  CHECK(std::isnan(slope(one, one)));
}

TEST_CASE("significance: Student's t at tabulated points") {
  struct Known {
    double freedom, t, p;
  };
  // Two-sided critical values, as in any table; the last two from closed forms.
  for (Known k : {Known{1, 12.7062, 0.05}, Known{2, 4.30265, 0.05}, Known{4, 2.77645, 0.05},
                  Known{9, 3.24984, 0.01}, Known{30, 2.04227, 0.05}, Known{1000, 1.96234, 0.05},
                  Known{1, 1, 0.5}, Known{2, std::sqrt(2.0), 1 - std::sqrt(0.5)}}) {
    CAPTURE(k.freedom);
    CHECK(student_p(k.t, k.freedom) == doctest::Approx(k.p).epsilon(1e-4));
    CHECK(student_p(-k.t, k.freedom) == student_p(k.t, k.freedom));
  }
  CHECK(student_p(0, 3) == 1);
  CHECK(student_p(INFINITY, 3) == 0);
  CHECK(std::isnan(student_p(1, 0)));
  PairedTest test = paired_test(std::vector<double>{1, 2, 3}, std::vector<double>{1.5, 2.6, 3.7});
  CHECK(test.difference == doctest::Approx(0.6));
  CHECK(test.error == doctest::Approx(0.1 / std::sqrt(3.0)));
  CHECK(test.t == doctest::Approx(0.6 / 0.1 * std::sqrt(3.0)));
  CHECK(test.p == doctest::Approx(student_p(test.t, 2)));
  CHECK(paired_test(std::vector<double>{1, 2}, std::vector<double>{1, 2}).p == 1);
  CHECK(paired_test(std::vector<double>{1, 2}, std::vector<double>{2, 3}).p == 0);
  CHECK(std::isnan(paired_test(std::vector<double>{1}, std::vector<double>{2}).p));
}

TEST_CASE("a judgement: steps to the target, verdicts, and what is not shown") {
  Config config;
  config.steps = 40;
  std::vector<Entrant> entrants = {
      entrant("adamw", {{5, 4, 3.5, 3.0}, {5, 4, 3.6, 3.2}, {5, 4, 3.5, 3.1}}),
      entrant("muon", {{4, 3.1, 2.8, 2.5}, {4, 3.3, 2.8, 2.702}, {4, 3, 2.8, 2.6}}),
      entrant("sgd", {{4, 3.1, 2.8, 2.6}, {4, 3.2, 2.8, 2.6}, {4, 3, 2.8, 2.6}})};
  Comparison c = judge(config, entrants);
  CHECK(c.target == 3.2);  // which all seeds of the first one reach
  CHECK(contains(c.target_from, "adamw"));
  REQUIRE(c.standings.size() == 3);
  CHECK(c.standings[0].steps_to_target == std::vector<std::optional<int64_t>>{40, 40, 40});
  CHECK(c.standings[1].steps_to_target == std::vector<std::optional<int64_t>>{20, 30, 20});
  CHECK(*c.standings[1].mean_steps_to_target == doctest::Approx(70.0 / 3));
  CHECK(c.standings[0].mean == doctest::Approx(3.1));
  CHECK(c.standings[0].ms_per_step == 1.5);
  CHECK(*c.standings[0].state_bytes == 7);
  CHECK(c.standings[0].curve_steps == std::vector<double>{10, 20, 30, 40});
  REQUIRE(c.verdicts.size() == 3);  // two with the first, and the best with the second best
  CHECK(c.level == doctest::Approx(0.05 / 3));
  CHECK(c.verdicts[0].better == "muon");
  CHECK(c.verdicts[0].worse == "adamw");
  CHECK(c.verdicts[0].shown);
  CHECK(c.verdicts[0].test.difference == doctest::Approx(3.1 - 7.802 / 3));
  CHECK(c.verdicts[0].track3_own);
  CHECK(c.verdicts[2].better == "sgd");
  CHECK(c.verdicts[2].worse == "muon");
  CHECK(!c.verdicts[2].shown);
  CHECK(!c.verdicts[2].track3);
  for (const std::string& text : {to_text(c), to_markdown(c)}) {
    CHECK(contains(text, "not shown"));
    CHECK(!contains(text, "equal"));
  }

  CHECK(*judge(config, entrants, 2.55).standings[1].steps_to_target[0] == 40);
  CHECK(!judge(config, entrants, 2.55).standings[1].mean_steps_to_target);
  CHECK(contains(to_text(judge(config, entrants, 2.0)), "not reached"));

  entrants[1].runs[2].val_loss = INFINITY;  // lost on one seed
  c = judge(config, entrants);
  CHECK(c.verdicts[0].better == "adamw");
  CHECK(contains(c.verdicts[0].why_not, "muon diverged"));
  CHECK(contains(to_text(c), "1 of 3 seeds diverged"));
  CHECK(!c.standings[1].steps_to_target[2]);  // although it was below the target before
  CHECK(json::parse(to_json(c))["methods"][1]["val_loss"][2].is_null());
  entrants[0].runs[0].val_loss = INFINITY;  // the first one itself: no target
  CHECK(!judge(config, entrants).standings[2].mean_steps_to_target);

  std::vector<Entrant> flat = {entrant("adamw", {{3, 3, 3, 3}, {3, 3, 3, 3}}),
                               entrant("muon", {{2, 2, 2, 2}, {2, 2, 2, 2}})};
  c = judge(config, flat);  // no spread at all, and no slope to count steps with
  CHECK(c.verdicts[0].shown);
  CHECK(std::isnan(c.verdicts[0].worth));
  CHECK(!contains(to_text(c), "diverged"));

  for (Entrant& e : entrants) e.runs = {e.runs[1]};
  c = judge(config, entrants);
  CHECK(c.verdicts[0].why_not == "one seed");
  CHECK(!c.verdicts[0].shown);
  CHECK(contains(to_text(c), "One seed: no verdict"));
}

// ---------------------------------------------------------------------------------- whole races

TEST_CASE("a race writes its runs, its tables, JSON and PNG") {
  std::string printed = finished().printed;
  CHECK(runs_in(printed) == 6);  // 2 rates on the first seed, the better one on the second
  for (const char* part : {"run 6/6 muon_momentum=0.9 lr", "step 48/48", "results", "verdict",
                           "learning rates tried", "at the edge of the grid"}) {
    CAPTURE(part);
    CHECK(contains(printed, part));
  }
  auto files = files_below(place() / "whole");
  for (const char* name :
       {"race.toml", "compare.md", "adamw/lr0.001/seed1337/checkpoint/latest",
        "adamw/lr0.004/seed1337/log.jsonl", "muon_momentum=0.9/lr0.08/seed1337/result.json"}) {
    CAPTURE(name);
    CHECK(files.count(name) == 1);
  }
  for (const auto& [name, bytes] : files) CHECK(!contains(name, "step-00000006"));
  CHECK(files["compare.png"].starts_with("\x89PNG"));
  CHECK(contains(files["compare.md"], "| contender |"));
  CHECK(files_below(place().folder.path())["own.json"] == files["compare.json"]);

  json result = result_of("whole");
  REQUIRE(result["methods"].size() == 2);
  for (const json& m : result["methods"]) {
    CHECK(m["val_loss"].size() == 2);
    CHECK(m["mean"].get<double>() ==
          doctest::Approx((m["val_loss"][0].get<double>() + m["val_loss"][1].get<double>()) / 2));
    CHECK(m["stderr"].get<double>() > 0);
    CHECK(m["steps_to_target"].size() == 2);
    CHECK(m["ms_per_step"].get<double>() > 0);
    CHECK(m["state_bytes"].get<int64_t>() > 0);
    REQUIRE(m["tuning"].size() == 2);
    int best = m["tuning"][1]["mean"] < m["tuning"][0]["mean"];
    CHECK(m["tuning"][best]["picked"] == true);
    CHECK(m["tuning"][best]["lr"] == m["lr"]);
    CHECK(m["tuning"][best]["val_loss"][0] == m["val_loss"][0]);
    CHECK(m["at_edge"] == true);
    CHECK(m["curve"]["step"].size() == 8);  // eval_every: a twentieth of the steps, at least 1
  }
  json muon = result["methods"][1];
  CHECK(muon["optimizer"] == "muon");
  CHECK(muon["label"] == "muon:momentum=0.9");
  CHECK(muon["settings"]["optimizer.momentum"] == "0.9");
  CHECK(result["verdicts"].size() == 1);
  CHECK(result["verdicts"][0]["no_verdict"] == "");
}

TEST_CASE("all runs of a seed begin with the same loss, to the bit; other seeds with others") {
  finished();
  std::map<std::string, std::set<double>> first;  // by seed
  int runs = 0;
  for (const auto& [name, bytes] : files_below(place() / "whole")) {
    if (!name.ends_with("/log.jsonl")) continue;
    std::string run = place() / "whole/" + name;
    first[name.substr(name.find("seed"), 8)].insert(read_log(run)[0].train_loss);
    runs++;
  }
  CHECK(runs == 6);
  REQUIRE(first.size() == 2);
  CHECK(first["seed1337"].size() == 1);
  CHECK(first["seed1338"].size() == 1);
  CHECK(first["seed1337"] != first["seed1338"]);

  copy_race("other-start");
  std::string log = place() / "other-start/adamw/lr0.004/seed1337/log.jsonl";
  std::vector<LogRow> rows = read_log(log);
  rows[0].train_loss = std::nextafter(rows[0].train_loss, 10);
  std::string text;
  for (const LogRow& row : rows) text += log_line(row) + "\n";
  put_bytes(log, text);
  check_refused(race("other-start", kTwo), {"other-start", "seed 1337", "first loss", "adamw"});
}

TEST_CASE("the same race again trains nothing and writes the same files") {
  copy_race("again");
  auto before = files_below(place() / "again");
  std::string printed = output_of(race("again", kTwo));
  CHECK(runs_in(printed) == 0);
  CHECK(contains(printed, "results"));
  auto after = files_below(place() / "again");
  for (const char* titled : {"compare.png"}) {  // the title is the folder's name
    before.erase(titled);
    after.erase(titled);
  }
  CHECK(after == before);
}

TEST_CASE("a seed, a rate or a contender more trains only what is missing") {
  copy_race("more");
  json before = result_of("more");
  CHECK(runs_in(output_of(race("more", kTwo + Words{"--target", "3"}))) == 0);
  auto with = [](const std::string& flag, const std::string& value) {
    Words words = kTwo;
    *(std::find(words.begin(), words.end(), flag) + 1) = value;
    return words;
  };
  CHECK(runs_in(output_of(race("more", with("--seeds", "3")))) == 2);
  json after = result_of("more");
  for (int i : {0, 1}) {
    REQUIRE(after["methods"][i]["val_loss"].size() == 3);
    CHECK(after["methods"][i]["val_loss"][0] == before["methods"][i]["val_loss"][0]);
    CHECK(after["methods"][i]["val_loss"][1] == before["methods"][i]["val_loss"][1]);
  }
  CHECK(runs_in(output_of(race("more", with("--optimizers", "adamw,muon:momentum=0.9,sgd")))) == 3);
  CHECK(result_of("more")["methods"].size() == 3);
  int extra = runs_in(output_of(race("more", with("--lrs", "1,4,0.1"))));
  CHECK(extra >= 2);  // and where it was the best, on the other seed too
  CHECK(extra <= 4);
  CHECK(result_of("more")["methods"][0]["tuning"].size() == 3);
}

TEST_CASE("a race that lost a run, or was cut off within one, ends with the same results") {
  copy_race("cut");
  std::string run = place() / "cut/muon_momentum=0.9/lr0.02/seed1337";
  Config config = make_config(read_toml(run + "/config.toml"));
  config.out = run;
  std::filesystem::remove_all(run);
  std::filesystem::remove_all(place() / "cut/adamw/lr0.001/seed1337");
  struct PowerCut {};
  auto cut = [](const LogRow& row) {
    if (row.step == 5) throw PowerCut();
  };
  CHECK_THROWS_AS(train(config, false, {}, cut), PowerCut);
  CHECK(list_checkpoints(run) == std::vector<int64_t>{3});
  CHECK(read_log(run + "/log.jsonl").size() == 5);
  CHECK(runs_in(output_of(race("cut", kTwo))) == 2);
  CHECK(timeless(result_of("cut")) == timeless(result_of("whole")));
}

TEST_CASE("after a signal the same command ends the race as if nothing had happened") {
  const Words flags = {"--optimizers", "adamw,muon", "--steps",      "300",
                       "--seeds",      "2",          "--eval-every", "100"};
  output_of(race("calm", flags));
  Outcome outcome;
  for (int attempt = 0; attempt < 5; attempt++) {  // on a busy machine the race may be the faster
    std::filesystem::remove_all(place() / "stopped");
    Command command(race("stopped", flags));
    for (int i = 0; i < 5000; i++, usleep(1000)) {
      std::error_code absent;
      auto size =
          std::filesystem::file_size(place() / "stopped/muon/lr0.02/seed1337/log.jsonl", absent);
      if (!absent && size > 500) break;
    }
    command.send(SIGHUP);
    outcome = command.wait();
    CAPTURE(outcome.err);
    REQUIRE(outcome.signal == 0);
    if (contains(outcome.out, "the same command goes on")) break;
  }
  CHECK(outcome.code == 130);
  REQUIRE(contains(outcome.out, "the same command goes on"));
  CHECK(contains(outcome.out, "stopped in run 2/4 muon"));
  CHECK(!std::filesystem::exists(place() / "stopped/compare.json"));
  CHECK(runs_in(output_of(race("stopped", flags))) == 3);
  CHECK(timeless(result_of("stopped")) == timeless(result_of("calm")));
  // A limit of time is for the whole race, and no mistake.
  CHECK(contains(output_of(race("limited", flags + Words{"--max-minutes", "0.001"})),
                 "the same command goes on"));
}

TEST_CASE("a rate that diverges is a rate that lost; the race goes on") {
  // Decay this strong multiplies the weights by a million at every step.
  const Words flags = {"--optimizers", "adamw:weight_decay=1000;lr=1e-4|1000,muon:lr=0.01|0.02",
                       "--steps",      "10",
                       "--seeds",      "2"};
  std::string printed = output_of(race("wild", flags));
  CHECK(contains(printed, "diverged; step"));
  json result = result_of("wild"), adamw = result["methods"][0];
  CHECK(adamw["lr"] == 1e-4);
  CHECK(adamw["tuning"][1]["val_loss"][0].is_null());
  CHECK(adamw["mean"].is_number());
  CHECK(result["verdicts"][0]["no_verdict"] == "");
  auto before = files_below(place() / "wild");
  CHECK(!contains(output_of(race("wild", flags)), "run 2/6"));
  CHECK(files_below(place() / "wild") == before);

  output_of(race("lost", {"--optimizers", "muon,adamw:weight_decay=1000;lr=1000", "--steps", "10",
                          "--seeds", "2"}));
  result = result_of("lost");
  CHECK(result["methods"][1]["diverged"] == 2);
  CHECK(result["methods"][1]["mean"].is_null());
  CHECK(result["verdicts"][0]["better"] == "muon");
  CHECK(contains(result["verdicts"][0]["no_verdict"].get<std::string>(), "diverged"));
}

TEST_CASE("a folder of a race with other settings, or of a training run, is refused") {
  copy_race("mixed");
  auto before = files_below(place() / "mixed");
  auto refused = [&](const Words& flags, const Words& parts) {
    Words words = race("mixed", kTwo + flags);
    if (flags[0] == "--steps")
      words.erase(std::find(words.begin(), words.end(), "--steps"),
                  std::find(words.begin(), words.end(), "--steps") + 2);
    check_refused(words, parts);
    CHECK(files_below(place() / "mixed") == before);
  };
  refused({"--steps", "9"}, {"mixed", "steps = 8, not steps = 9"});
  refused({"--clip", "2"}, {"mixed", "clip = 1, not clip = 2"});
  refused({"--eval-every", "4"}, {"eval_every"});
  refused({"--auxiliary.lr", "0.5"},
          {"adamw/lr0.001", "auxiliary.lr = 0.003, not auxiliary.lr = 0.5"});
  CHECK(runs_in(output_of(race("mixed", kTwo + Words{"--log-every", "5"}))) == 0);
  put_bytes(place() / "mixed/adamw/lr0.001/seed1337/result.json", "{");
  check_refused(race("mixed", kTwo), {"result.json", "damaged"});
  output_of(place().train("a-run", {"--steps", "1"}));
  check_refused(race("a-run", kTwo), {"a-run", "training run"});
}

TEST_CASE("one seed gives results and no verdict; without --optimizers adamw and muon race") {
  std::string printed = output_of(race("single", {"--steps", "4", "--seeds", "1"}));
  CHECK(contains(printed, "One seed: no verdict"));
  json result = result_of("single");
  CHECK(result["methods"][0]["optimizer"] == "adamw");
  CHECK(result["methods"][1]["optimizer"] == "muon");
  CHECK(result["methods"][0]["stderr"].is_null());
  CHECK(result["methods"][0]["tuning"].empty());
  CHECK(result["verdicts"][0]["no_verdict"] == "one seed");
  CHECK(result["verdicts"][0]["shown"] == false);
}
