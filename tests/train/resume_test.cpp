// tests/train/resume_test.cpp - however a run is interrupted, going on gives the bits of a run that
// never stopped: the same tensors in the last checkpoint, the same numbers in the log.
#include <fmt/format.h>
#include <unistd.h>  // usleep

#include <cmath>
#include <cstring>

#include "optim/registry.h"
#include "tests/train/run_command.h"
#include "tests/train/same_run.h"
#include "train/checkpoint.h"
#include "train/interrupt.h"
#include "train/log.h"

using namespace murmur;

namespace {

const Workplace& place() {
  static const Workplace one;
  return one;
}

std::string optimizer_flag(const std::string& name) { return "--optimizer=" + name; }

double last_loss(const std::string& run) { return read_log(run + "/log.jsonl").back().train_loss; }

// A run of `steps` whose learning rate does not depend on how many steps are asked for.
Words constant(const std::string& name, const std::string& optimizer, int steps,
               const Words& more = {}) {
  return place().train(name, Words{optimizer_flag(optimizer), "--schedule", "constant", "--warmup",
                                   "2", "--eval-every", "4", "--steps", std::to_string(steps)} +
                                 more);
}

// Until it is there, with more than `bytes`; five seconds.
void wait_for_file(const std::string& path, size_t bytes) {
  for (int i = 0; i < 5000; i++, usleep(1000)) {
    std::error_code absent;
    if (std::filesystem::file_size(path, absent) > bytes && !absent) break;
  }
}

auto handler_of(int signal) {
  struct sigaction action {};
  sigaction(signal, nullptr, &action);
  return action.sa_handler;
}

// Goes on with what RUN/config.toml says.
Words resumed(const std::string& name, const Words& more = {}) {
  return Words{"train", "--resume", "--out", place() / name} + more;
}

}  // namespace

TEST_CASE("stopped after k steps and resumed, a run equals one that never stopped") {
  for (const OptimizerEntry& entry : optimizer_list()) {
    const std::string optimizer = entry.name;
    CAPTURE(optimizer);
    const std::string whole = optimizer + "-whole", parts = optimizer + "-parts";
    output_of(constant(whole, optimizer, 11));
    output_of(constant(parts, optimizer, 5));
    output_of(resumed(parts, {"--steps", "7"}));
    CHECK(contains(output_of(resumed(parts, {"--steps", "11"})), "going on after step 7"));
    check_same_run(place() / parts, place() / whole);
    // The checkpoint holds the weights that the last validation was about.
    const std::string said = output_of({"eval", place() / whole, "--json"}), key = "\"val_loss\": ";
    CHECK(
        std::stod(said.substr(said.find(key) + key.size())) ==
        doctest::Approx(*read_log(place() / whole + "/log.jsonl").back().val_loss).epsilon(1e-12));
  }
}

TEST_CASE("a run goes on with its own optimizer, whose settings may change, or not at all") {
  output_of(constant("settled", "adamw", 2));
  for (const char* key : {"optimizer", "auxiliary"}) {
    check_refused(resumed("settled", {std::string("--") + key, "lion", "--steps", "3"}),
                  {key, "began with adamw", "not lion"});
  }
  output_of(resumed("settled", {"--optimizer.beta2", "0.9", "--steps", "3"}));
  output_of(resumed("settled", {"--optimizer", "adamw", "--steps", "4"}));
  output_of(constant("cut", "muon", 2));
  check_refused(resumed("cut", {"--row-blocks", "qkv", "--steps", "3"}),
                {"c_attn.weight.momentum", "the run began with"});
  output_of(constant("based", "soap", 2));
  check_refused(resumed("based", {"--optimizer.max_dim", "0", "--steps", "3"}),
                {"optimizer state", "the run began with"});
  check_same_run(place() / "based", place() / "based");  // still whole
}

TEST_CASE("the number of threads changes no run, also not at an interruption") {
  // nano as it is, but for the batch: banks of four matrices and of more.
  for (const char* arch : {"gpt2", "modern"}) {
    for (const char* dtype : {"fp32", "bf16"}) {
      CAPTURE(std::string(arch));
      CAPTURE(std::string(dtype));
      auto run = [&](const std::string& name, const char* threads, const char* steps) {
        output_of({"train",  "--data",       place().data, "--preset",     "nano",
                   "--arch", arch,           "--dtype",    dtype,          "--batch-size",
                   "4",      "--schedule",   "constant",   "--eval-every", "2",
                   "--out",  place() / name, "--threads",  threads,        "--steps",
                   steps});
      };
      const std::string whole = std::string("threads-1-") + arch + dtype;
      run(whole, "1", "3");
      for (const char* threads : {"2", "3", "5", "8", "16"}) {
        CAPTURE(std::string(threads));
        const bool interrupted = threads == std::string("5");
        const std::string name = std::string("threads-") + threads + arch + dtype;
        run(name, threads, interrupted ? "2" : "3");
        if (interrupted) output_of(resumed(name, {"--threads", "1", "--steps", "3"}));
        check_same_run(place() / name, place() / whole);
      }
    }
  }
}

TEST_CASE("micro-batches, bf16 and the modern architecture resume bit for bit") {
  std::vector<Words> variants = {
      {"--accumulation", "2"},
      {"--dtype", "bf16"},
      {"--arch", "modern"},
      {"--arch", "modern", "--dtype", "bf16", "--checkpointing", "true"}};
  for (size_t i = 0; i < variants.size(); i++) {
    CAPTURE(i);
    const std::string whole = "variant-whole-" + std::to_string(i),
                      parts = "variant-parts-" + std::to_string(i);
    output_of(constant(whole, "muon", 9, variants[i]));
    output_of(constant(parts, "muon", 4, variants[i]));
    output_of(resumed(parts, {"--steps", "9"}));
    check_same_run(place() / parts, place() / whole);
  }
}

TEST_CASE("a signal finishes the step and saves; resuming loses nothing") {
  const Words run = {"--steps", "1000", "--eval-every", "400", "--checkpoint-every", "450"};
  output_of(place().train("uninterrupted", run));
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR2}) {
    CAPTURE(signal);
    const std::string name = "signal-" + std::to_string(signal),
                      log = place() / name + "/log.jsonl";
    Outcome outcome;
    for (int attempt = 0; attempt < 5; attempt++) {  // on a busy machine the run may be the faster
      std::filesystem::remove_all(place() / name);
      Command command(place().train(name, run));
      wait_for_file(log, 500);
      command.send(signal);
      if (signal != SIGINT) command.send(SIGHUP);  // as when a session ends behind its terminal
      outcome = command.wait();
      CAPTURE(outcome.err);
      REQUIRE(outcome.signal == 0);
      if (contains(outcome.out, "stopped after step")) break;
    }
    REQUIRE(contains(outcome.out, "stopped after step"));
    CHECK(outcome.code == 130);
    CHECK(outcome.err == "murmur: stopping, after a checkpoint; Ctrl-C again ends at once\n");
    int64_t step = read_log(log).back().step;
    CHECK(step < 1000);
    CHECK(load_checkpoint(place() / name).step == step);
    CHECK(std::filesystem::exists(place() / name + "/loss.png"));
    output_of(resumed(name));
    check_same_run(place() / name, place() / "uninterrupted");
  }
}

TEST_CASE("SIGUSR1 saves, and the run goes on") {
  // No checkpoint is due before the end.
  Command command(
      constant("saved", "adamw", 1000, {"--checkpoint-every", "0", "--keep-best", "false"}));
  wait_for_file(place() / "saved/log.jsonl", 500);
  command.send(SIGUSR1);
  Outcome outcome = command.wait();
  CHECK(outcome.code == 0);
  CHECK(contains(outcome.out, "a checkpoint is written, as a signal asked for"));
  std::vector<int64_t> steps = list_checkpoints(place() / "saved");
  REQUIRE(steps.size() == 2);
  CHECK(steps[0] < 1000);
  CHECK(steps[1] == 1000);
  CHECK(read_log(place() / "saved/log.jsonl").size() == 1000);
}

TEST_CASE("a validation comes after the checkpoint, can be stopped, and is made up for") {
  // A long text to validate: much longer than all else.
  put_bytes(place() / "long.txt", some_text(500000));
  const std::string data = place() / "long";
  output_of({"data", "prepare", place() / "long.txt", "--out", data, "--val-fraction", "0.9"});
  auto run = [&](const std::string& name) {
    Words words = with(with(constant(name, "adamw", 3), "--eval-every", "0"), "--data", data);
    return with(words, "--batch-size", "1");
  };
  output_of(run("validated"));
  Command command(run("cut-short"));
  wait_for_file(place() / "cut-short/checkpoint/step-00000003/state.json", 1);
  CHECK(read_log(place() / "cut-short/log.jsonl").size() == 3);
  command.send(SIGINT);
  Outcome outcome = command.wait();
  CHECK(outcome.code == 130);
  CHECK(contains(outcome.out, "before the end of the last validation"));
  LogRow row = read_log(place() / "cut-short/log.jsonl").back();
  CHECK(row.step == 3);
  CHECK(!row.val_loss);
  CHECK(contains(output_of(resumed("cut-short")), "step      3  validation loss"));
  check_same_run(place() / "cut-short", place() / "validated");
  CHECK(read_log(place() / "cut-short/log.jsonl").back().val_loss);
  // Killed in it, nothing is lost either.
  Command killed(run("killed"));
  wait_for_file(place() / "killed/checkpoint/step-00000003/state.json", 1);
  killed.send(SIGKILL);
  killed.wait();
  output_of(resumed("killed"));
  check_same_run(place() / "killed", place() / "validated");
}

TEST_CASE("an interruption is noted; a second Ctrl-C ends all") {
  signal(SIGHUP, SIG_IGN);  // nohup
  catch_interrupts();
  CHECK((handler_of(SIGHUP) == SIG_IGN));
  signal(SIGHUP, SIG_DFL);
  catch_interrupts();
  raise(SIGUSR1);
  CHECK(saves_asked() == 1);
  CHECK(!interrupted());
  raise(SIGTERM);
  raise(SIGTERM);
  CHECK(interrupted());
  CHECK((handler_of(SIGINT) != SIG_DFL));
  raise(SIGINT);
  CHECK((handler_of(SIGINT) == SIG_DFL));
  CHECK((handler_of(SIGTERM) != SIG_DFL));
}

TEST_CASE("killed again and again at random moments, a run still ends with the same bits") {
  const Words run = {"--steps", "90", "--eval-every", "20", "--checkpoint-every", "3", "--resume"};
  output_of(place().train("never-killed", run));
  std::mt19937 random(11);
  for (int round = 0; round < 3; round++) {
    CAPTURE(round);
    const std::string name = "killed-" + std::to_string(round);
    int kills = 0;
    for (int life = 0; life < 60; life++) {
      Command command(place().train(name, run));
      usleep(unsigned(random() % (20000 + 6000 * unsigned(life))));
      command.send(SIGKILL);
      Outcome outcome = command.wait();
      CAPTURE(outcome.err);
      REQUIRE((outcome.signal == SIGKILL || outcome.code == 0));
      if (outcome.signal == 0) break;
      kills++;
    }
    WARN(kills > 0);
    output_of(resumed(name));
    check_same_run(place() / name, place() / "never-killed");
  }
}

TEST_CASE("resuming a finished run changes neither checkpoint nor log") {
  output_of(constant("finished", "muon", 4));
  auto before = files_below(place() / "finished");
  CHECK(contains(output_of(resumed("finished")), "already has its 4 steps"));
  CHECK(files_below(place() / "finished") == before);
}

TEST_CASE("with another batch size or other ranks a run reads on where it was") {
  // Weights that stay as they are: a loss tells which sequences were read.
  auto still = [](const std::string& name, int steps, int batch, const Words& more = {}) {
    Words words = constant(name, "adamw", steps, Words{"--lr", "0"} + more);
    return with(words, "--batch-size", std::to_string(batch));
  };
  output_of(still("twos", 12, 2));
  std::vector<LogRow> twos = read_log(place() / "twos/log.jsonl");
  output_of(still("fours", 3, 4));  // as six of two
  output_of(resumed("fours", {"--steps", "5", "--batch-size", "2"}));
  output_of(resumed("fours", {"--steps", "6", "--batch-size", "6", "--nodes", "3"}));
  output_of(resumed("fours", {"--steps", "7", "--batch-size", "2", "--nodes", "1"}));
  std::vector<LogRow> rows = read_log(place() / "fours/log.jsonl");
  REQUIRE(rows.size() == 7);
  CHECK(same_bits(rows[3].train_loss, twos[6].train_loss));
  CHECK(same_bits(rows[4].train_loss, twos[7].train_loss));
  double mean = (twos[8].train_loss + twos[9].train_loss + twos[10].train_loss) / 3;
  CHECK(rows[5].train_loss == doctest::Approx(mean).epsilon(1e-6));
  CHECK(same_bits(rows[6].train_loss, twos[11].train_loss));
  const int64_t tokens[] = {64, 128, 192, 224, 256, 352, 384};
  for (size_t i = 0; i < rows.size(); i++) CHECK(rows[i].tokens == tokens[i]);
}

TEST_CASE("what goes on in another way than it began is said in a line") {
  output_of(constant("said", "adamw", 6, {}));
  std::string same = output_of(resumed("said", {"--threads", "2", "--log-every", "3"}));
  CHECK(!contains(same, "changed"));
  CHECK(!contains(same, "rate    "));
  std::string other = output_of(resumed(
      "said", {"--batch-size", "2", "--steps", "7", "--seed", "8", "--optimizer.beta2", "0.9"}));
  CHECK(
      contains(other, "changed steps 6 -> 7, batch_size 4 -> 2, seed 1337 -> 8, optimizer.beta2 "));
  CHECK(!contains(other, "rate    "));
  // A schedule that has come down, and goes up again: 0.01 of a plateau of twelve steps.
  output_of(with(constant("heated", "adamw", 6, {"--lr", "0.01", "--min-lr", "0.1"}), "--schedule",
                 "wsd"));
  other = output_of(resumed("heated", {"--steps", "14"}));
  CHECK(contains(other, "changed steps 6 -> 14\n"));
  CHECK(contains(other, "rate    0.01 at step 7; as it went before it would be 0.001\n"));
}

TEST_CASE("--max-minutes saves and stops in time, and --resume goes on") {
  const Words limited = {"--max-minutes", "0.01"};
  std::string told = output_of(constant("limited", "adamw", 1000000, limited));
  CHECK(contains(told, "max_minutes"));
  int64_t step = load_checkpoint(place() / "limited").step;
  CHECK(read_log(place() / "limited/log.jsonl").back().step == step);
  const std::string steps = std::to_string(step + 5);
  output_of(resumed("limited", {"--steps", steps, "--max-minutes", "0"}));
  output_of(constant("unlimited", "adamw", int(step) + 5));
  check_same_run(place() / "limited", place() / "unlimited");
  // Several ranks end after the same step.
  told = output_of(constant("limited-3", "adamw", 1000000, limited + Words{"--nodes", "3"}));
  CHECK(contains(told, "max_minutes"));
}

TEST_CASE("the checkpoint with the lowest validation loss is kept, and found as the best") {
  const std::string run = place() / "best";
  output_of(constant("best", "adamw", 8, {"--lr", "0.01"}));
  output_of(resumed("best", {"--steps", "24", "--lr", "3"}));  // from bad to worse
  std::vector<LogRow> rows = read_log(run + "/log.jsonl");
  REQUIRE(*rows[7].val_loss < *rows[3].val_loss);
  REQUIRE(*rows[7].val_loss < *rows[23].val_loss);
  CHECK(list_checkpoints(run) == std::vector<int64_t>{4, 8, 24});
  std::string said = output_of({"eval", run, "--step", "best", "--json"});
  CHECK(contains(said, "\"step\": 8,"));
  CHECK(contains(said, fmt::format("\"val_loss\": {},", *rows[7].val_loss)));
  output_of({"sample", run, "--step", "best", "--tokens", "3"});
  output_of({"export", run, "--step", "best", "--out", run + "-exported"});
  CHECK(load_checkpoint(run + "-exported").step == 8);
  check_refused({"eval", run + "-exported", "--step", "best"}, {"best", "step-00000008"});
  // Of the validations before it, and those of another run of the same folder.
  output_of(resumed("best", {"--resume-from", "best", "--steps", "9", "--keep", "1", "--lr", "3"}));
  CHECK(list_checkpoints(run) == std::vector<int64_t>{8, 9});
  output_of(constant("all-kept", "adamw", 8, {"--checkpoint-every", "1", "--keep", "5"}));
  CHECK(list_checkpoints(place() / "all-kept") == std::vector<int64_t>{3, 4, 5, 6, 7, 8});
}

TEST_CASE("--init-from begins with the weights of another run, and with nothing else of it") {
  auto val_loss = [](const std::string& run) {
    return *read_log(run + "/log.jsonl").back().val_loss;
  };
  for (const char* optimizer : {"muon", "schedule_free_adamw"}) {
    CAPTURE(optimizer);
    const std::string source = std::string("source-") + optimizer, folder = place() / source;
    output_of(constant(source, optimizer, 6));
    output_of({"export", folder, "--out", folder + "-exported"});
    for (const std::string& from :
         {folder, folder + "-exported", folder + "/", folder + "/checkpoint/step-00000006"}) {
      // Model and vocabulary are those of the run; with rate 0 the weights stay.
      std::filesystem::remove_all(place() / "begun");
      output_of({"train", "--data", place().data, "--out", place() / "begun", "--init-from", from,
                 "--steps", "1", "--batch-size", "4", "--lr", "0", "--auxiliary.lr", "0",
                 "--optimizer", "lion"});
      CHECK(val_loss(place() / "begun") == val_loss(folder));
      LogRow first = read_log(place() / "begun/log.jsonl").front();
      CHECK(first.step == 1);
      CHECK(first.tokens == 64);
    }
    // Trained further with new state, it is not the run that was resumed.
    output_of(constant("anew", optimizer, 6, {"--init-from", folder}));
    CHECK(load_checkpoint(place() / "anew").step == 6);
    CHECK(val_loss(place() / "anew") < val_loss(folder));
    std::filesystem::remove_all(place() / "anew");
  }
  const std::string source = place() / "source-muon";
  for (const char* strategy : {"sharded", "fsdp", "local_sgd", "gossip", "gradient_tracking"}) {
    CAPTURE(strategy);
    std::filesystem::remove_all(place() / "begun");
    output_of(
        constant("begun", "adamw", 1,
                 {"--init-from", source, "--lr", "0", "--nodes", "2", "--strategy", strategy}));
    CHECK(val_loss(place() / "begun") == doctest::Approx(val_loss(source)).epsilon(1e-6));
  }
}

TEST_CASE("--init-from says in one line what does not fit") {
  const std::string source = place() / "source";
  output_of(constant("source", "adamw", 2));
  auto refused = [&](const Words& more, const Words& parts) {
    check_refused(
        Words{"train", "--data", place().data, "--out", place() / "none", "--init-from", source} +
            more,
        parts);
    CHECK(!std::filesystem::exists(place() / "none/log.jsonl"));
  };
  refused({"--n-embd", "32"}, {source, "wte.weight", "(256, 16)", "(256, 32)"});
  refused({"--n-layer", "2"}, {source, "h.1."});
  refused({"--n-head", "4"}, {"n_head", source, "2 heads, not 4"});
  refused({"--bias", "false"}, {source, "parameters"});
  check_refused({"train", "--data", place().data, "--out", place() / "none", "--init-from",
                 place() / "nowhere"},
                {"init_from", place() / "nowhere"});
  const std::string letters = place() / "letters";
  output_of({"data", "prepare", place() / "text.txt", "--tokenizer", "char", "--out", letters});
  check_refused({"train", "--data", letters, "--out", place() / "none", "--init-from", source},
                {"init_from", "tokenizer", "byte", "char"});
  check_refused(resumed("source", {"--init-from", place() / "other"}), {"init_from", "none"});
}

TEST_CASE("--resume starts where there is no checkpoint yet") {
  output_of(constant("fresh", "muon", 4, {"--resume"}));
  output_of(constant("plain", "muon", 4));
  check_same_run(place() / "fresh", place() / "plain");
}

TEST_CASE("--resume-from goes back to an earlier checkpoint and cuts the log there") {
  const std::string run = place() / "back";
  output_of(constant("back-whole", "muon", 12, {"--checkpoint-every", "3"}));
  for (const char* step : {"6", "step-00000006"}) {
    CAPTURE(step);
    std::filesystem::remove_all(run);
    output_of(constant("back", "muon", 9, {"--checkpoint-every", "3"}));
    const std::string newest = run + "/checkpoint/step-00000009/model.safetensors";
    std::string bytes = files_below(run)["checkpoint/step-00000009/model.safetensors"];
    put_bytes(newest, bytes.substr(0, bytes.size() - 1));
    check_refused(resumed("back"), {newest, "--resume-from step-00000008 or step-00000006"});
    check_refused({"eval", run}, {newest, "step-00000006", "--step"});

    CHECK(contains(output_of({"eval", run, "--step", step}), "at step 6"));
    output_of({"sample", run, "--step", step, "--tokens", "1"});

    // With no step left to do, all that happens is the cut.
    output_of(resumed("back", {"--resume-from", step, "--steps", "6"}));
    CHECK(list_checkpoints(run).back() == 6);
    CHECK(read_log(run + "/log.jsonl").size() == 6);
    output_of(resumed("back", {"--steps", "12"}));
    check_same_run(run, place() / "back-whole");
  }
}

TEST_CASE("--resume-from without --resume, of a step that is not there, or of no step") {
  const std::string run = place() / "from";
  output_of(constant("from", "adamw", 6, {"--checkpoint-every", "3"}));
  auto before = files_below(run);
  auto back = [&](const std::string& step) {
    return Words{"train", "--out", run, "--resume-from", step, "--steps", "9"};
  };
  check_refused(back("5"), {"step-00000005", "no such checkpoint", "step-00000006"});
  check_refused(back("newest"), {"--resume-from", "'newest'"});
  check_refused(back("-3"), {"--resume-from", "'-3'"});
  check_refused(back("3x"), {"--resume-from", "'3x'"});
  check_refused(
      {"train", "--data", place().data, "--out", place() / "nothing", "--resume-from", "3"},
      {"nothing", "no checkpoint"});
  CHECK(!std::filesystem::exists(place() / "nothing"));
  CHECK(files_below(run) == before);
  output_of(back("3"));
  output_of(constant("from-whole", "adamw", 9, {"--checkpoint-every", "3"}));
  check_same_run(run, place() / "from-whole");
}

TEST_CASE("micro-batches of any size train the same model") {
  for (const char* micro : {"1", "2", "4"})
    output_of(constant(std::string("accumulation-") + micro, "sgd", 10, {"--accumulation", micro}));
  Checkpoint one = load_checkpoint(place() / "accumulation-1");
  for (const char* micro : {"2", "4"}) {
    CAPTURE(micro);
    const std::string run = place() / (std::string("accumulation-") + micro);
    CHECK(last_loss(run) == doctest::Approx(last_loss(place() / "accumulation-1")).epsilon(1e-5));
    Checkpoint other = load_checkpoint(run);
    for (const std::string& name : one.model.names()) {
      CAPTURE(name);
      std::vector<double> a = to_vector(one.model.read(name)),
                          b = to_vector(other.model.read(name));
      double worst = 0;
      for (size_t i = 0; i < a.size(); i++) worst = std::max(worst, std::fabs(a[i] - b[i]));
      CHECK(worst < 1e-5);
    }
  }
}

TEST_CASE("computing activations again in backward changes no bit") {
  for (const std::string arch : {"gpt2", "modern"}) {
    for (const std::string dtype : {"fp32", "bf16"}) {
      CAPTURE(arch);
      CAPTURE(dtype);
      const std::string name = "activations-" + arch + dtype;
      const Words same = {"--arch", arch, "--dtype", dtype};
      output_of(constant(name + "-kept", "muon", 5, same));
      output_of(constant(name + "-again", "muon", 5, same + Words{"--checkpointing", "true"}));
      check_same_run(place() / (name + "-again"), place() / (name + "-kept"));
    }
  }
}

TEST_CASE("bf16 trains as fp32 does, to two percent") {
  for (const std::string arch : {"gpt2", "modern"}) {
    CAPTURE(arch);
    for (const std::string dtype : {"fp32", "bf16"})
      output_of(constant("type-" + arch + dtype, "muon", 20, {"--arch", arch, "--dtype", dtype}));
    double exact = last_loss(place() / ("type-" + arch + "fp32")),
           rounded = last_loss(place() / ("type-" + arch + "bf16"));
    CHECK(exact < 5);  // it did learn: ln 256 = 5.5
    CHECK(rounded == doctest::Approx(exact).epsilon(0.02));
    CHECK(rounded != exact);
  }
}

TEST_CASE("bf16 trains where the processor has no instructions for it") {
  setenv("MURMUR_CPU", "avx2", 1);
  output_of(constant("processor-avx2", "muon", 2, {"--dtype", "bf16"}));
  setenv("MURMUR_CPU", "avx3", 1);
  check_refused(constant("processor-avx3", "muon", 2), {"MURMUR_CPU", "'avx3'", "'avx2'"});
  unsetenv("MURMUR_CPU");
  CHECK(std::isfinite(last_loss(place() / "processor-avx2")));
}
