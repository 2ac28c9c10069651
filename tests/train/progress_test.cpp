// tests/train/progress_test.cpp - what a terminal and a file get to see, without a terminal.
#include "train/progress.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>

using namespace murmur;

namespace {

// A stream whose text can be read back.
class Screen {
 public:
  std::FILE* stream() { return file_.get(); }

  std::string text() {
    std::string all;
    std::rewind(file_.get());
    for (int c; (c = std::fgetc(file_.get())) != EOF;) all += static_cast<char>(c);
    std::fseek(file_.get(), 0, SEEK_END);
    return all;
  }

 private:
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_{std::tmpfile(), std::fclose};
};

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) found++;
  return found;
}

bool contains(const std::string& text, const std::string& part) { return count(text, part) > 0; }

std::string without_color(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\x1b') {
      i = text.find_first_of("mK", i);
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// Sets NO_COLOR for a scope.
class NoColor {
 public:
  explicit NoColor(const char* value) {
    if (const char* before = std::getenv("NO_COLOR")) before_ = before;
    ::setenv("NO_COLOR", value, 1);
  }
  ~NoColor() {
    if (before_.empty()) {
      ::unsetenv("NO_COLOR");
    } else {
      ::setenv("NO_COLOR", before_.c_str(), 1);
    }
  }

 private:
  std::string before_;
};

const ProgressState kHalfWay{.step = 1000,
                             .total_steps = 2000,
                             .loss = 2.41321,
                             .lr = 3e-4,
                             .tokens_per_s = 18440,
                             .elapsed_s = 62};

}  // namespace

TEST_CASE("durations read like a clock") {
  CHECK(duration_text(0) == "0:00");
  CHECK(duration_text(0.4) == "0:00");
  CHECK(duration_text(42) == "0:42");
  CHECK(duration_text(59.6) == "1:00");
  CHECK(duration_text(723) == "12:03");
  CHECK(duration_text(3599.7) == "1:00:00");
  CHECK(duration_text(3723) == "1:02:03");
  CHECK(duration_text(2 * 86400 + 3 * 3600 + 4 * 60) == "2d 03:04");
  CHECK(duration_text(-1) == "-:--");
  CHECK(duration_text(std::nan("")) == "-:--");
  CHECK(duration_text(std::numeric_limits<double>::infinity()) == "-:--");
}

TEST_CASE("rates have three digits or so") {
  CHECK(rate_text(0) == "0 tok/s");
  CHECK(rate_text(950.2) == "950 tok/s");
  CHECK(rate_text(999.7) == "1.0k tok/s");
  CHECK(rate_text(18440) == "18.4k tok/s");
  CHECK(rate_text(999960) == "1.00M tok/s");
  CHECK(rate_text(1254000) == "1.25M tok/s");
  CHECK(rate_text(std::nan("")) == "- tok/s");
}

TEST_CASE("the time left counts only the steps of this session") {
  CHECK(seconds_left(kHalfWay) == doctest::Approx(62));
  ProgressState resumed = kHalfWay;
  resumed.start_step = 900;  // 100 steps took 62 s, 1000 are left
  CHECK(seconds_left(resumed) == doctest::Approx(620));
  resumed.start_step = 1000;
  CHECK(std::isnan(seconds_left(resumed)));
  resumed.start_step = 900;
  resumed.step = 2500;  // past the end
  CHECK(seconds_left(resumed) == 0);
}

TEST_CASE("the live line shows everything, the bar half full") {
  CHECK(progress_line(kHalfWay, 100) ==
        "1000/2000 [===========>          ]  loss 2.4132  18.4k tok/s  1:02 elapsed, 1:02 left");
  ProgressState done = kHalfWay;
  done.step = 2000;
  CHECK(contains(progress_line(done, 100), "2000/2000 [======================]"));
  done.step = 3000;
  CHECK(contains(progress_line(done, 100), "[======================]"));
  done.step = 7;
  CHECK(contains(progress_line(done, 100), "   7/2000 [>                     ]"));
}

TEST_CASE("the live line fits every width") {
  for (bool color : {false, true}) {
    ProgressState state = kHalfWay;
    state.color = color;
    for (int width = 0; width < 120; width++) {
      const std::string line = without_color(progress_line(state, width));
      CAPTURE(width);
      CAPTURE(line);
      CHECK(int(line.size()) <= width);
      CHECK(contains(line, "1000/2000") == (width >= 9));
      CHECK(contains(line, "loss 2.4132") == (width >= 22));
      CHECK(contains(line, "left") == (width >= 60));
      CHECK(contains(line, "[") == (width >= 60 + 1 + 6));
    }
  }
}

TEST_CASE("colour changes nothing but the colour, and a loss that is not a number is red") {
  ProgressState state = kHalfWay;
  state.color = true;
  const std::string line = progress_line(state, 100);
  CHECK(contains(line, "\x1b["));
  CHECK(without_color(line) == progress_line(kHalfWay, 100));
  CHECK(!contains(progress_line(kHalfWay, 100), "\x1b"));
  CHECK(!contains(line, "\x1b[31m"));
  state.loss = std::nan("");
  CHECK(contains(progress_line(state, 100), "\x1b[31m  loss nan\x1b[0m"));
}

TEST_CASE("a file gets a plain line every few steps and at the end") {
  Screen screen;
  {
    Progress progress(25, screen.stream(), false, 10);
    for (int step = 1; step <= 25; step++) progress.update(step, 2.5, 1e-3, 1000);
    progress.message("step 25: validation loss 2.6");
    progress.finish();
    progress.finish();
  }
  const std::string text = screen.text();
  CHECK(count(text, "\n") == 4);
  CHECK(contains(text, "step 10/25  loss 2.5000  lr 1.00e-03  1.0k tok/s  "));
  CHECK(contains(text, "step 20/25  "));
  CHECK(contains(text, "step 25/25  "));
  CHECK(contains(text, "\nstep 25: validation loss 2.6\n"));
  CHECK(!contains(text, "\r"));
  CHECK(!contains(text, "\x1b"));
}

TEST_CASE("a run that stops early still shows its last step") {
  Screen screen;
  {
    Progress progress(1000, screen.stream(), false, 100);
    for (int step = 1; step <= 7; step++) progress.update(step, 2.5, 1e-3, 1000);
  }
  CHECK(count(screen.text(), "\n") == 1);
  CHECK(contains(screen.text(), "step 7/1000  "));
}

TEST_CASE("a terminal gets one line that is redrawn, not every time") {
  NoColor no_color("1");
  Screen screen;
  {
    Progress progress(2000, screen.stream(), true, 1);
    for (int step = 1; step <= 2000; step++) progress.update(step, 2.5, 1e-3, 1000);
  }
  const std::string text = screen.text();
  CHECK(count(text, "\n") == 1);
  CHECK(text.back() == '\n');
  CHECK(count(text, "\r") < 1000);
  CHECK(count(text, "\r") == count(text, "\x1b[K"));
  CHECK(count(text, "\x1b") == count(text, "\x1b[K"));
  CHECK(text.rfind("\r   1/2000", 0) == 0);  // the first step at once, the last one for certain
  CHECK(contains(text, "\r2000/2000"));
}

TEST_CASE("a validation shows how far it is, and leaves a terminal as it was") {
  using std::chrono::milliseconds;
  for (bool is_terminal : {false, true}) {
    Screen screen;
    {
      ValidationProgress progress(screen.stream(), is_terminal, milliseconds(0));
      progress.update(0, 300);
      progress.update(120, 300);
    }
    const std::string text = screen.text();
    CHECK(contains(text, "validation 120/300 batches  0:00 elapsed, 0:00 left"));
    CHECK(count(text, "\n") == (is_terminal ? 0 : 2));
    CHECK(count(text, "\r") == (is_terminal ? 3 : 0));
    if (is_terminal) CHECK(text.ends_with("\r\x1b[K"));
    Screen quiet;
    {
      ValidationProgress progress(quiet.stream(), is_terminal, milliseconds(100000));
      for (int done = 0; done < 300; done++) progress.update(done, 300);
    }
    CHECK(quiet.text() == "");  // of a short one nothing
  }
}

TEST_CASE("NO_COLOR counts when it is set and not empty") {
  for (bool wanted : {false, true}) {
    NoColor no_color(wanted ? "" : "1");
    Screen screen;
    Progress progress(10, screen.stream(), true, 1);
    progress.update(1, 2.5, 1e-3, 1000);
    CHECK(contains(screen.text(), "\x1b[0m") == wanted);
  }
}

TEST_CASE("a message stands on lines of its own above the live line") {
  NoColor no_color("1");
  Screen screen;
  {
    Progress progress(10, screen.stream(), true, 1);
    progress.message("before the first step");
    progress.update(1, 2.5, 1e-3, 1000);
    progress.message("validation loss 2.6\nbest so far");
  }
  const std::string text = screen.text();
  CHECK(text.rfind("\r\x1b[Kbefore the first step\n\r 1/10", 0) == 0);
  CHECK(contains(text, "\r\x1b[Kvalidation loss 2.6\nbest so far\n\r 1/10"));
}

TEST_CASE("nothing is shown of a run that never began") {
  for (bool is_terminal : {false, true}) {
    Screen screen;
    { Progress progress(10, screen.stream(), is_terminal, 1); }
    CHECK(screen.text() == "");
  }
}

TEST_CASE("the shown loss is an average that forgets a NaN") {
  Screen screen;
  Progress progress(100, screen.stream(), false, 1);
  progress.update(1, 4, 0, 0);
  progress.update(2, 2, 0, 0);  // (0.95 * 4 + 2) / 1.95
  progress.update(3, std::nan(""), 0, 0);
  progress.update(4, 3, 0, 0);
  const std::string text = screen.text();
  CHECK(contains(text, "step 1/100  loss 4.0000"));
  CHECK(contains(text, "step 2/100  loss 2.9744"));
  CHECK(contains(text, "step 3/100  loss nan"));
  CHECK(contains(text, "step 4/100  loss 3.0000"));
}

TEST_CASE("several runs in a row: each has its title, and its own average") {
  Screen screen;
  Progress progress(20, screen.stream(), false, 5);
  progress.begin("run 1/2 muon");
  progress.update(5, 4, 1e-3, 1000);
  progress.update(10, 4, 1e-3, 1000);
  progress.begin("run 2/2 adamw");
  progress.update(15, 2, 1e-3, 1000);
  CHECK(contains(screen.text(), "run 1/2 muon  step 10/20  loss 4.0000"));
  CHECK(contains(screen.text(), "run 2/2 adamw  step 15/20  loss 2.0000"));
  ProgressState state = kHalfWay;
  state.title = "run 3/4 muon lr 0.02";
  CHECK(progress_line(state, 100).starts_with("run 3/4 muon lr 0.02  1000/2000 ["));
  for (int width = 0; width < 120; width++) CHECK(int(progress_line(state, width).size()) <= width);
}
