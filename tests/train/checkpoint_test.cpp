// tests/train/checkpoint_test.cpp - whatever happens while one is saved, a whole checkpoint is
// there.
#include "train/checkpoint.h"

#include <doctest/doctest.h>
#include <signal.h>    // kill
#include <sys/wait.h>  // waitpid
#include <unistd.h>    // fork, usleep, _exit

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tensor/check.h"
#include "tests/train/temporary_folder.h"
#include "train/files.h"

using namespace murmur;
namespace fs = std::filesystem;

namespace {

// Everything in it says `mark`, so that pieces of two saves cannot pass as one.
struct Run {
  Tensor weights = Tensor::of({0, 0, 0, 0}, {2, 2});
  Tensor momentum = Tensor::of({0, 0, 0, 0}, {2, 2});

  void save(const std::string& run_dir, int64_t step, int64_t mark) {
    std::fill_n(weights.data<float>(), 4, float(mark));
    std::fill_n(momentum.data<float>(), 4, float(-mark));
    NamedTensor model[] = {{"w", weights}};
    NamedTensor optimizer[] = {{"w.m", momentum}};
    save_checkpoint(run_dir, step, model, optimizer,
                    {{{"mark", mark}}, {{"name", "run"}}, {{"loss", 0.1}}});
  }
  void save(const std::string& run_dir, int64_t step) { save(run_dir, step, step); }
};

int64_t mark_of(const Checkpoint& checkpoint) {
  int64_t mark = checkpoint.state.counters.at("mark");
  Tensor weights = checkpoint.model.read("w"), momentum = checkpoint.optimizer.read("w.m");
  for (int i = 0; i < 4; i++) {
    CHECK(weights.data<float>()[i] == float(mark));
    CHECK(momentum.data<float>()[i] == float(-mark));
  }
  return mark;
}

using Steps = std::vector<int64_t>;

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

const std::vector<std::string> kFiles = {"model.safetensors", "optimizer.safetensors",
                                         "state.json"};

}  // namespace

TEST_CASE("a checkpoint comes back as it was saved") {
  TemporaryFolder folder;
  NamedTensor model[] = {{"w", Tensor::of({1, 2}, {2})}, {"b", Tensor::of({3}, {})}};
  NamedTensor optimizer[] = {{"w.v", Tensor::of({1e-300}, {1}, DType::f64)}};
  using Limits = std::numeric_limits<double>;
  CheckpointState state;
  state.counters = {{"tokens", INT64_MAX}, {"seed", INT64_MIN}, {"zero", 0}};
  state.text = {{"tokenizer", "byte"},
                {"odd \"key\"\n", "\u00e9\n\\"},
                {"checksum", "deadbeef"},
                {"empty", ""}};
  state.values = {{"third", 1.0 / 3},
                  {"tiny", Limits::denorm_min()},
                  {"huge", Limits::max()},
                  {"-zero", -0.0},
                  {"inf", INFINITY},
                  {"-inf", -INFINITY},
                  {"nan", Limits::quiet_NaN()},
                  {"one", 1},
                  {"next", std::nextafter(1.0, 2.0)}};
  save_checkpoint(folder.path(), 1000, model, optimizer, state);

  Checkpoint back = load_checkpoint(folder.path());
  CHECK(back.step == 1000);
  CHECK(back.path == folder / "checkpoint/step-00001000");
  CHECK(back.model.names() == std::vector<std::string>{"b", "w"});
  CHECK(back.optimizer.read("w.v").data<double>()[0] == 1e-300);
  CHECK(back.state.counters == state.counters);
  CHECK(back.state.text == state.text);
  REQUIRE(back.state.values.size() == state.values.size());
  for (const auto& value : state.values) {
    CAPTURE(value.first);
    CHECK(std::memcmp(&back.state.values.at(value.first), &value.second, sizeof(double)) == 0);
  }
  CHECK(files_in(back.path) == kFiles);
}

TEST_CASE("a run without checkpoints has none, and loading says so") {
  TemporaryFolder folder;
  CHECK(list_checkpoints(folder / "nothing").empty());
  CHECK(!has_checkpoint(folder.path()));
  CHECK(says(input_error_of([&] { load_checkpoint(folder.path()); }), folder.path(),
             "no checkpoint here"));
}

TEST_CASE("names hold eight digits or more, and come back as steps") {
  CHECK(checkpoint_name(1000) == "step-00001000");
  CHECK(checkpoint_name(123456789012) == "step-123456789012");
  CHECK(checkpoint_step("step-00001000") == 1000);
  CHECK(checkpoint_step("step-900") == 900);
  CHECK(checkpoint_step("step-0") == 0);
  for (const char* wrong : {"", "step-", "step", "1000", "step--1", "step-1x",
                            "step-99999999999999999999", ".step-00000001.part", "Step-1"}) {
    CHECK(!checkpoint_step(wrong));
  }
}

TEST_CASE("the newest and the best are kept, until what came before the best is gone back to") {
  TemporaryFolder folder;
  Run run;
  CHECK(!best_checkpoint(folder.path()));
  for (int64_t step : {100, 200, 300, 400}) {
    run.save(folder.path(), step);
    if (step == 200) mark_best(folder.path(), {step, 1.0 / 3});
  }
  CHECK(list_checkpoints(folder.path()) == Steps{200, 300, 400});
  CHECK(best_checkpoint(folder.path())->step == 200);
  CHECK(best_checkpoint(folder.path())->loss == 1.0 / 3);
  CHECK(mark_of(load_checkpoint(folder.path(), kBestStep)) == 200);
  CHECK(find_checkpoint(folder.path(), kBestStep) == 200);
  CHECK(find_checkpoint(folder.path()) == 400);
  mark_best(folder.path(), {400, 0.25});
  CHECK(list_checkpoints(folder.path()) == Steps{200, 300, 400});
  run.save(folder.path(), 350);  // the best went with the other later ones
  CHECK(!best_checkpoint(folder.path()));
  CHECK(says(input_error_of([&] { find_checkpoint(folder.path(), kBestStep); }), folder.path(),
             "step-00000350"));
  run.save(folder.path(), 400);
  CHECK(!best_checkpoint(folder.path()));
  for (const char* nonsense : {"", "step-00000400", "400 1", "step-00000500 1\n"}) {
    put_bytes(folder / "checkpoint/best", nonsense);
    CHECK(!best_checkpoint(folder.path()));
  }
}

TEST_CASE("the newest two are kept, `latest` names the newest, nothing else is left") {
  TemporaryFolder folder;
  Run run;
  for (int64_t step : {0, 100, 200, 300}) run.save(folder.path(), step);
  CHECK(list_checkpoints(folder.path()) == Steps{200, 300});
  CHECK(has_checkpoint(folder.path()));
  CHECK(read_file(folder / "checkpoint/latest") == "step-00000300\n");
  CHECK(files_in(folder / "checkpoint") ==
        std::vector<std::string>{"latest", "step-00000200", "step-00000300"});
  CHECK(mark_of(load_checkpoint(folder.path())) == 300);
  CHECK(mark_of(load_checkpoint(folder.path(), 200)) == 200);
  std::string message = input_error_of([&] { load_checkpoint(folder.path(), 100); });
  CHECK(says(message, "step-00000100: no such checkpoint",
             "--resume-from step-00000300 or step-00000200"));
}

TEST_CASE("a step saved again takes the place of the old one") {
  TemporaryFolder folder;
  Run run;
  run.save(folder.path(), 100, 1);
  run.save(folder.path(), 100, 2);
  CHECK(list_checkpoints(folder.path()) == Steps{100});
  CHECK(mark_of(load_checkpoint(folder.path())) == 2);
  CHECK(files_in(folder / "checkpoint") == std::vector<std::string>{"latest", "step-00000100"});
}

TEST_CASE("going back to an earlier step abandons the later ones") {
  TemporaryFolder folder;
  Run run;
  for (int64_t step : {100, 200}) run.save(folder.path(), step);
  run.save(folder.path(), 150);
  CHECK(list_checkpoints(folder.path()) == Steps{100, 150});
  CHECK(load_checkpoint(folder.path()).step == 150);
  CHECK(read_file(folder / "checkpoint/latest") == "step-00000150\n");
}

TEST_CASE("any damage is found, and the message names the file and the other checkpoint") {
  TemporaryFolder folder;
  Run run;
  for (int64_t step : {100, 200}) run.save(folder.path(), step);
  for (const std::string& name : kFiles) {
    std::string path = folder / ("checkpoint/step-00000200/" + name);
    const std::string whole = read_file(path);
    auto message = [&] {
      return input_error_of([&] {
        Checkpoint checkpoint = load_checkpoint(folder.path());
        checkpoint.model.read("w");
        checkpoint.optimizer.read("w.m");
      });
    };
    const std::string remedy = " or --resume-from step-00000100";
    for (size_t bit = 0; bit < 8 * whole.size(); bit += 3) {
      std::string damaged = whole;
      damaged[bit / 8] = char(damaged[bit / 8] ^ (1 << bit % 8));
      put_bytes(path, damaged);
      CAPTURE(bit);
      CHECK(says(message(), path, remedy));
    }
    for (size_t size = 0; size < whole.size(); size += 7) {
      put_bytes(path, whole.substr(0, size));
      CHECK(says(message(), path, remedy));
    }
    fs::remove(path);
    CHECK(says(message(), path, "No such file or directory; check the path" + remedy));
    put_bytes(path, whole);
    CHECK(message().empty());
  }
  CHECK(mark_of(load_checkpoint(folder.path(), 100)) == 100);
}

TEST_CASE("files of two checkpoints do not pass as one") {
  TemporaryFolder folder;
  Run run;
  for (int64_t step : {100, 200}) run.save(folder.path(), step);
  for (const std::string& name : kFiles) {
    std::string path = folder / ("checkpoint/step-00000200/" + name);
    const std::string own = read_file(path);
    put_bytes(path, read_file(folder / ("checkpoint/step-00000100/" + name)));
    std::string message = input_error_of([&] { load_checkpoint(folder.path()); });
    CHECK(says(message, "step-00000200/",
               name == "state.json" ? "is of step 100" : "belongs to another checkpoint"));
    put_bytes(path, own);
  }
  fs::rename(folder / "checkpoint/step-00000200", folder / "checkpoint/step-00000300");
  CHECK(says(input_error_of([&] { load_checkpoint(folder.path()); }), "step-00000300/state.json",
             "is of step 200"));
  fs::remove_all(folder / "checkpoint/step-00000100");
  std::string alone = input_error_of([&] { load_checkpoint(folder.path()); });
  CHECK(!contains(alone, "--resume-from"));
}

TEST_CASE("every state an interrupted save can leave loads, and the next save clears it away") {
  TemporaryFolder made;
  Run run;
  run.save(made.path(), 300);
  const std::string fresh = made / "checkpoint/step-00000300";

  // What stands on the disk besides the checkpoints 100 and 200, and which one is then the newest.
  struct Moment {
    const char* sentence;
    int64_t newest;
    void (*leave)(const std::string& checkpoints, const std::string& fresh);
  };
  const Moment moments[] = {
      {"the folder was just made", 200,
       [](const std::string& c, const std::string&) {
         fs::create_directory(c + "/.step-00000300.part");
       }},
      {"half of the first file is written", 200,
       [](const std::string& c, const std::string& fresh) {
         fs::create_directory(c + "/.step-00000300.part");
         put_bytes(c + "/.step-00000300.part/model.safetensors.part",
                   read_file(fresh + "/model.safetensors").substr(0, 99));
       }},
      {"two of three files are written", 200,
       [](const std::string& c, const std::string& fresh) {
         fs::copy(fresh, c + "/.step-00000300.part");
         fs::remove(c + "/.step-00000300.part/state.json");
       }},
      {"all is written, not renamed", 200,
       [](const std::string& c, const std::string& fresh) {
         fs::copy(fresh, c + "/.step-00000300.part");
       }},
      {"renamed, `latest` not yet changed", 300,
       [](const std::string& c, const std::string& fresh) {
         fs::copy(fresh, c + "/step-00000300");
       }},
      {"`latest` is half written", 300,
       [](const std::string& c, const std::string& fresh) {
         fs::copy(fresh, c + "/step-00000300");
         put_bytes(c + "/latest.part", "step-00");
       }},
      {"the oldest is half removed", 300,
       [](const std::string& c, const std::string& fresh) {
         fs::copy(fresh, c + "/step-00000300");
         fs::rename(c + "/step-00000100", c + "/.step-00000100.part");
         fs::remove(c + "/.step-00000100.part/model.safetensors");
       }},
      {"an earlier attempt at the next save left a file", 200,
       [](const std::string& c, const std::string&) {
         fs::create_directory(c + "/.step-00000400.part");
         put_bytes(c + "/.step-00000400.part/stray", "x");
       }},
      {"`latest` never existed", 200,
       [](const std::string& c, const std::string&) { fs::remove(c + "/latest"); }},
      {"`latest` names nothing", 200,
       [](const std::string& c, const std::string&) {
         put_bytes(c + "/latest", "step-00000999\n");
       }},
      {"step 200 was being replaced, its old self waits aside", 200,
       [](const std::string& c, const std::string& fresh) {
         fs::copy(c + "/step-00000200", c + "/.step-00000200.part");
         put_bytes(c + "/.step-00000200.part/state.json", read_file(fresh + "/state.json"));
       }},
  };
  for (const Moment& moment : moments) {
    CAPTURE(moment.sentence);
    TemporaryFolder folder;
    for (int64_t step : {100, 200}) run.save(folder.path(), step);
    moment.leave(folder / "checkpoint", fresh);
    CHECK(mark_of(load_checkpoint(folder.path())) == moment.newest);
    run.save(folder.path(), 400);
    CHECK(list_checkpoints(folder.path()) == Steps{moment.newest, 400});
    CHECK(mark_of(load_checkpoint(folder.path())) == 400);
    CHECK(read_file(folder / "checkpoint/latest") == "step-00000400\n");
    CHECK(files_in(folder / "checkpoint").size() == 3);
    CHECK(files_in(folder / "checkpoint/step-00000400") == kFiles);
  }
}

TEST_CASE("a save that fails leaves the checkpoints as they were") {
  if (!fs::exists("/dev/full")) return;
  TemporaryFolder folder;
  Run run;
  run.save(folder.path(), 100);
  NamedTensor bad[] = {{"w", run.weights}, {"w", run.weights}};
  CHECK_THROWS_AS(save_checkpoint(folder.path(), 200, bad, {}, {}), Error);
  CHECK_THROWS_AS(save_checkpoint(folder.path(), 200, {}, {}, {{}, {{"text", "\xff"}}, {}}), Error);
  CHECK_THROWS_AS(save_checkpoint(folder.path(), -1, {}, {}, {}), Error);
  CHECK(files_in(folder / "checkpoint") == std::vector<std::string>{"latest", "step-00000100"});
  CHECK(mark_of(load_checkpoint(folder.path())) == 100);
}

// A child goes on from the newest checkpoint and saves as fast as it can, every time with a new
// mark, until it is killed. Delays are measured in saves, so that a slow disk takes no longer.
template <class Save>
void kill_while_saving(const std::string& run_dir, int rounds, Save save_forever) {
  using Clock = std::chrono::steady_clock;
  Run run;
  auto begin = Clock::now();
  run.save(run_dir, 7);
  double save_us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
  std::mt19937 random(2);
  std::uniform_real_distribution<double> delay_us(0, std::min(3 * save_us, 40'000.));

  for (int round = 1; round <= rounds; round++) {
    int64_t first = load_checkpoint(run_dir).step;
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        save_forever(run, first, 1000 * round);
      } catch (...) {
      }
      _exit(1);
    }
    usleep(useconds_t(delay_us(random)));
    kill(child, SIGKILL);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CAPTURE(round);
    CHECK(WIFSIGNALED(status));  // it did not end by itself
    REQUIRE(has_checkpoint(run_dir));
    for (int64_t step : list_checkpoints(run_dir)) mark_of(load_checkpoint(run_dir, step));
  }
}

TEST_CASE("a run killed at any moment has whole checkpoints only, and goes on from them") {
  TemporaryFolder folder;
  kill_while_saving(folder.path(), 60, [&](Run& run, int64_t step, int64_t mark) {
    for (;; step++) {  // forward, and now and then one step back
      run.save(folder.path(), step, mark++);
      if (step % 4 == 0) run.save(folder.path(), step - 1, mark++);
    }
  });
}

TEST_CASE("a run killed while it replaces its only checkpoint still has it") {
  TemporaryFolder folder;
  kill_while_saving(folder.path(), 60, [&](Run& run, int64_t step, int64_t mark) {
    for (;;) run.save(folder.path(), step, mark++);
  });
}
