// train/progress.h - how far the run is: one live line on a terminal, plain lines elsewhere.
//
//   terminal    412/2000 [====>              ]  loss 2.4132  18.4k tok/s  0:42 elapsed, 2:41 left
//   elsewhere  step 400/2000  loss 2.4206  lr 3.00e-04  18.4k tok/s  0:41 elapsed, 2:42 left
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace murmur {

struct ProgressState {
  int64_t step = 0, total_steps = 0, start_step = 0;
  double loss = 0, lr = 0, tokens_per_s = 0, elapsed_s = 0;
  bool color = false;
  std::string title{};  // before everything else; may be empty
};

// At most `width` columns: the bar gives way first, then whole fields from the right.
std::string progress_line(const ProgressState& state, int width);
std::string plain_line(const ProgressState& state);

std::string duration_text(double seconds);        // 0:42, 12:03, 1:02:03, 2d 03:04; unknown: -:--
std::string rate_text(double tokens_per_s);       // 950 tok/s, 18.4k tok/s, 1.25M tok/s
double seconds_left(const ProgressState& state);  // NaN before the first step

// How far a validation is: a live line on a terminal, elsewhere a line now and then. None of a
// short one.
class ValidationProgress {
 public:
  explicit ValidationProgress(std::FILE* stream);
  // A line at most every `every`.
  ValidationProgress(std::FILE* stream, bool is_terminal, std::chrono::milliseconds every);
  ~ValidationProgress();  // a live line is gone
  void update(int64_t done, int64_t total);

 private:
  using Clock = std::chrono::steady_clock;
  std::FILE* const stream_;
  const bool is_terminal_;
  const std::chrono::milliseconds every_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point shown_at_ = start_;
};

// A terminal that can redraw a line (not TERM=dumb).
bool is_live_terminal(std::FILE* stream);

class Progress {
 public:
  // `start_step`: the steps a resumed run had already done; the time left is judged without them.
  Progress(int64_t total_steps, std::FILE* stream, bool is_terminal, int64_t log_every,
           int64_t start_step = 0);
  ~Progress();  // finishes, so that an error message starts on a line of its own
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(int64_t step, double loss, double lr, double tokens_per_s);
  void message(std::string_view text);  // whole lines, above the live line
  void begin(std::string title);        // the next of several runs in a row, with its own losses
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  ProgressState state() const;
  void draw();
  void print_plain();

  const int64_t total_steps_, start_step_, log_every_;
  std::FILE* const stream_;
  const bool is_terminal_, color_;
  const Clock::time_point start_;
  Clock::time_point drawn_at_{};
  int64_t step_ = -1, shown_step_ = -1;  // the latest; the one on the screen
  double loss_sum_ = 0, loss_weight_ = 0;
  double loss_ = 0, lr_ = 0, tokens_per_s_ = 0;
  std::string title_;
  bool finished_ = false;
};

}  // namespace murmur
