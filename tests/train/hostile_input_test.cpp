// tests/train/hostile_input_test.cpp - the murmur program where files, streams and limits are not
// what they should be: one line that says so, nothing lost, and never a wait without an end.
#include <sys/stat.h>  // mkfifo

#include <cmath>

#include "tests/train/run_command.h"
#include "train/checkpoint.h"
#include "train/files.h"

using namespace murmur;

namespace {

// A finished run that no test changes.
struct Finished : Workplace {
  std::string run = folder / "run";
  Finished() { output_of(train("run", {"--steps", "4"})); }
};

const Finished& finished() {
  static const Finished one;
  return one;
}

// Copies of it and of its data, to damage.
struct Damaged {
  TemporaryFolder folder{quick_place()};
  std::string run = folder / "run", data = folder / "data";
  Damaged() {
    std::filesystem::copy(finished().run, run, std::filesystem::copy_options::recursive);
    std::filesystem::copy(finished().data, data, std::filesystem::copy_options::recursive);
  }
  Words resume() const {
    return {"train", "--data", data, "--out", run, "--resume", "--steps", "5"};
  }
};

// Fails in one line that is not about the input.
void check_fails(const Outcome& outcome, const std::string& part) {
  CAPTURE(outcome.err);
  CHECK(outcome.signal == 0);
  CHECK(outcome.code == 1);
  CHECK(outcome.err.starts_with("murmur: "));
  CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
  CHECK(contains(outcome.err, part));
}

}  // namespace

TEST_CASE("an empty name of a file or folder is refused by every command: it is the root") {
  const Finished& f = finished();
  for (const Words& words :
       std::vector<Words>{{"train", "--data", f.data, "--out", ""},
                          {"train", "--data", "", "--out", f / "none"},
                          {"train", "--config", ""},
                          {"train", "--data", f.data, "--out", "", "--resume"},
                          {"compare", "--data", f.data, "--out", ""},
                          {"compare", "--data", f.data, "--json", ""},
                          {"synthetic", "--out", ""},
                          {"synthetic", "--json", ""},
                          {"data", "prepare", f / "text.txt", "--out", ""},
                          {"data", "prepare", "", "--out", f / "none"},
                          {"data", "info", ""},
                          {"export", f.run, "--out", ""},
                          {"export", "", "--out", f / "none"},
                          {"sample", ""},
                          {"eval", ""},
                          {"eval", f.run, "--data", ""},
                          {"graph", "--out", ""},
                          {"launch", "-n", "2", "--hosts", "", "--", "train"}}) {
    check_refused(words, {"is empty; name a"});
  }
  put_bytes(f / "empty.toml", "data = \"" + f.data + "\"\nout = \"\"\n");
  check_refused({"train", "--config", f / "empty.toml"}, {"out", "is empty; name a"});
}

TEST_CASE("output that cannot be written is a failure, of every command that prints") {
  if (!std::filesystem::exists("/dev/full")) return;
  const Finished& f = finished();
  for (const Words& words : std::vector<Words>{{"sample", f.run, "--tokens", "4"},
                                               {"eval", f.run},
                                               {"eval", f.run, "--json"},
                                               {"export", f.run, "--out", f / "exported"},
                                               {"data", "info", f.data},
                                               {"graph", "--nodes", "4"},
                                               {"graph", "--nodes", "64", "--json"},
                                               {"list", "ops"},
                                               {"list", "config", "--json"},
                                               {"--help"},
                                               {"--version"},
                                               f.train("full", {"--steps", "2"})}) {
    CAPTURE(joined(words));
    check_fails(Command(words, "/dev/full").wait(), "standard output: not all of it could be");
  }
  CHECK(path_exists(f / "full/checkpoint/step-00000002/state.json"));
}

TEST_CASE("where the standard streams are closed, what is printed does not land in files") {
  const Finished& f = finished();
  Outcome outcome = Command(f.train("closed", {"--steps", "3", "--log-every", "1"}), "").wait();
  CHECK(outcome.code == 0);
  for (const auto& [name, bytes] : files_below(f / "closed")) {
    CAPTURE(name);
    CHECK_FALSE(contains(bytes, "tok/s"));
  }
  check_refused({"train", "--data", f.data, "--out", f / "closed"}, {"holds a run of 3 steps"});
}

TEST_CASE("weights that are not finite: no text and no loss, but one line") {
  Damaged d;
  Checkpoint whole = load_checkpoint(d.run);
  std::vector<NamedTensor> weights;
  for (const std::string& name : whole.model.names())
    weights.push_back({name, whole.model.read(name)});
  weights[0].tensor.data<float>()[0] = NAN;
  save_checkpoint(d.run, 5, weights, {}, whole.state);
  for (const Words& words : std::vector<Words>{{"sample", d.run, "--tokens", "4"},
                                               {"sample", d.run, "--temperature", "0"},
                                               {"eval", d.run, "--data", d.data},
                                               {"eval", d.run, "--data", d.data, "--json"}}) {
    CAPTURE(joined(words));
    Outcome outcome = run_command(words);
    check_fails(outcome, "diverged; take an earlier checkpoint with --step");
    CHECK(outcome.out == "");
  }
  output_of({"sample", d.run, "--tokens", "4", "--step", "4"});
}

TEST_CASE("a pipe in the place of any file is refused, and nobody waits for it") {
  const Words of_run = {"config.toml", "log.jsonl", "checkpoint/step-00000004/model.safetensors",
                        "checkpoint/step-00000004/optimizer.safetensors",
                        "checkpoint/step-00000004/state.json"};
  const Words of_data = {"tokenizer.json", "train_000000.bin", "val_000000.bin"};
  Damaged d;
  auto with_pipe = [&](const std::string& path, const std::vector<Words>& commands) {
    CAPTURE(path);
    std::filesystem::rename(path, d.folder / "aside");
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    for (const Words& words : commands) check_refused(words, {path, "not a regular file"});
    std::filesystem::remove(path);
    std::filesystem::rename(d.folder / "aside", path);
  };
  for (const std::string& name : of_run) with_pipe(d.run + "/" + name, {d.resume()});
  with_pipe(d.run + "/tokenizer.json", {{"sample", d.run}});
  for (const std::string& name : of_data)
    with_pipe(d.data + "/" + name, {d.resume(), {"data", "info", d.data}});
  with_pipe(d.data + "/data.json", {{"data", "info", d.data}});
  const std::string pipe = d.folder / "pipe";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  check_refused({"data", "prepare", pipe, "--out", d.folder / "none"}, {pipe, "not a regular"});
  check_refused({"train", "--config", pipe}, {pipe, "not a regular"});
  check_refused({"graph", "--topology", "edges", "--edges", pipe, "--nodes", "4"},
                {pipe, "not a regular"});
  check_refused({"graph", "--out", pipe}, {pipe, "not a regular"});
  for (const char* endless : {"/dev/zero", "/dev/stdin"}) {
    check_refused({"data", "prepare", endless, "--out", d.folder / "none"}, {endless});
    check_refused({"train", "--config", endless}, {endless});
  }
}

TEST_CASE("a file that is far too large for what it should be is refused unread") {
  Damaged d;
  const std::string huge = d.folder / "huge";
  put_bytes(huge, "x");
  std::filesystem::resize_file(huge, uint64_t(1) << 40);  // takes no room on the disk
  check_refused({"train", "--config", huge}, {huge, "is it the right file?"});
  check_refused({"data", "prepare", huge, "--out", d.folder / "none"}, {huge, "right file?"});
  check_refused({"graph", "--topology", "edges", "--edges", huge, "--nodes", "4"}, {huge});
  for (const std::string name : {"/tokenizer.json", "/config.toml"}) {
    std::filesystem::resize_file(d.run + name, uint64_t(1) << 40);
    check_refused({"sample", d.run}, {d.run + name, "is it the right file?"});
  }
}

TEST_CASE("links that lead in a circle are refused in one line") {
  Damaged d;
  const std::string loop = d.folder / "loop";
  std::filesystem::create_symlink(loop, loop);
  for (const Words& words :
       std::vector<Words>{{"train", "--data", loop, "--out", d.folder / "none"},
                          {"train", "--data", d.data, "--out", loop},
                          {"train", "--config", loop},
                          {"train", "--data", d.data, "--out", loop, "--resume"},
                          {"compare", "--data", d.data, "--out", loop},
                          {"compare", "--data", d.data, "--json", loop},
                          {"synthetic", "--out", loop},
                          {"synthetic", "--json", loop},
                          {"data", "prepare", loop, "--out", d.folder / "none"},
                          {"data", "prepare", finished() / "text.txt", "--out", loop},
                          {"data", "info", loop},
                          {"sample", loop},
                          {"eval", loop},
                          {"eval", d.run, "--data", loop},
                          {"export", loop, "--out", d.folder / "none"},
                          {"export", d.run, "--out", loop},
                          {"graph", "--out", loop}}) {
    check_refused(words, {loop, "symbolic links"});
  }
}

TEST_CASE("a place for results that cannot be written is refused before the race, not after it") {
  const Finished& f = finished();
  for (const Words& words : std::vector<Words>{{"compare", "--data", f.data}, {"synthetic"}}) {
    const Words race = words + Words{"--out", f / "race"};
    check_refused(race + Words{"--json", f.folder.path()}, {f.folder.path(), "Is a directory"});
    check_refused(race + Words{"--json", f / "none/a.json"}, {"none/a.json", "No such file"});
    check_refused(race + Words{"--json", "/dev/null"}, {"/dev/null", "not a regular file"});
  }
  CHECK_FALSE(path_exists(f / "race"));
}

TEST_CASE("at the limit on file sizes a run ends in one line, and its checkpoints are whole") {
  Damaged d;
  const auto before = files_below(d.run + "/checkpoint");
  {
    const FileLimit limit(12000);  // less than a checkpoint
    check_fails(run_command(d.resume()), "ulimit -f");
  }
  CHECK(files_below(d.run + "/checkpoint") == before);
  output_of(d.resume());
}

TEST_CASE("a shard that is cut while a run reads it ends the run in one line") {
  Damaged d;
  const std::string log = finished() / "cut/log.jsonl";
  Command run(with(finished().train("cut", {"--steps", "100000000", "--log-every", "1000000"}),
                   "--data", d.data));
  for (int i = 0; i < 2000 && (!path_exists(log) || read_file(log).size() < 1000); i++)
    usleep(5000);
  std::filesystem::resize_file(d.data + "/train_000000.bin", 1024 + 100);
  Outcome outcome = run.wait();
  CAPTURE(outcome.err);
  CHECK(outcome.code == 2);
  CHECK(contains(outcome.err, "train_000000.bin: became shorter while it was read"));
}

TEST_CASE("numbers that no machine or kernel can serve are refused with the name of the flag") {
  const Finished& f = finished();
  for (const Words& words : std::vector<Words>{f.train("none", {"--steps", "1"}),
                                               {"bench", "step"},
                                               {"bench", "mixing"},
                                               {"bench", "ops"},
                                               {"bench", "optimizers"}}) {
    bool has = words[0] == "train";
    check_refused(has ? with(words, "--threads", "4096") : words + Words{"--threads", "4096"},
                  {"threads: 4096 on", "use at most"});
  }
  output_of(with(f.train("threads", {"--steps", "1"}), "--threads", "16"));
  check_refused(with(with(f.train("none"), "--n-embd", "514"), "--n-head", "2"),
                {"n_head: 2 on a width of 514", "at most 256"});
}

TEST_CASE("sample without a prompt begins with what the alphabet has") {
  const Finished& f = finished();
  put_bytes(f / "letters.txt", std::string(300, 'c') + std::string(300, 'b') + "ccbcbbcbcbcbcbbc");
  output_of({"data", "prepare", f / "letters.txt", "--out", f / "letters", "--tokenizer", "char",
             "--val-fraction", "0.1"});
  output_of(with(f.train("few", {"--steps", "1"}), "--data", f / "letters"));
  std::string text = output_of({"sample", f / "few", "--tokens", "5"});
  CHECK(text.size() == 7);  // the first letter, five more, a line end
  CHECK(text[0] == 'b');
  CHECK(output_of({"sample", finished().run, "--tokens", "0"}) == "\n\n");
}

TEST_CASE("folders of runs and of data stay apart") {
  Damaged d;
  const Finished& f = finished();
  const std::string before = read_file(d.run + "/tokenizer.json");
  check_refused({"data", "prepare", f / "text.txt", "--tokenizer", "char", "--out", d.run},
                {"out: '", "holds a run"});
  CHECK(read_file(d.run + "/tokenizer.json") == before);
  check_refused(with(f.train("none", {"--steps", "1"}), "--out", f.data), {"holds the data"});
  CHECK(!path_exists(f.data + "/.lock"));
  // its place would be taken from under everybody who stands in it
  WorkingDirectory here(d.data);
  check_refused({"data", "prepare", f / "text.txt", "--out", "."},
                {"the folder in which this runs"});
  output_of({"data", "info", "."});
}

TEST_CASE("a run whose last validation is no number has diverged") {
  const Finished& f = finished();
  Words blown = f.train("blown") + Words{"--optimizer.lr=1000",
                                         "--optimizer.weight_decay=200",
                                         "--steps=3",
                                         "--optimizer=sgd",
                                         "--schedule=constant",
                                         "--warmup=0",
                                         "--clip=0"};
  check_fails(run_command(blown), "the validation loss is");
  check_fails(run_command(blown + Words{"--resume"}), "the validation loss is");
}

TEST_CASE("a resume that takes no step leaves the settings of the run as they are") {
  Damaged d;
  const std::string before = read_file(d.run + "/config.toml");
  output_of({"train", "--data", d.data, "--out", d.run, "--resume", "--seed", "9"});
  CHECK(read_file(d.run + "/config.toml") == before);
}

TEST_CASE("an identity that says nothing is damaged; a lock is no link") {
  Damaged d;
  for (const char* text : {"null", "[]", "{}", "{\"data\": 1}", "x"}) {
    CAPTURE(std::string(text));
    put_bytes(d.run + "/identity.json", text);
    check_refused({"eval", d.run}, {"identity.json: damaged"});
    check_refused(d.resume(), {"identity.json: damaged"});
  }
  std::filesystem::remove(d.run + "/identity.json");
  put_bytes(d.folder / "precious", "precious");
  std::filesystem::create_symlink(d.folder / "precious", d.run + "/.lock");
  check_refused(d.resume(), {".lock: cannot create"});
  CHECK(read_file(d.folder / "precious") == "precious");
}

TEST_CASE("a configuration whose tables stand inside each other without an end is one line") {
  const Finished& f = finished();
  std::string deep = "a";
  for (int i = 0; i < 400000; i++) deep += ".a";
  for (const std::string& text :
       {deep + " = 1\n", "[" + deep + "]\n", std::string("[a.b]\nc = 1\n")}) {
    put_bytes(f / "deep.toml", text);
    Outcome outcome = run_command({"train", "--config", f / "deep.toml"});
    CHECK(outcome.signal == 0);
    CHECK(outcome.code == 2);
    CHECK(contains(outcome.err, "deep.toml:1:"));
  }
}
