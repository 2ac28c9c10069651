// train/progress.cpp - builds the line from coloured pieces, so that colour never counts as width.
#include "train/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>  // TIOCGWINSZ
#include <unistd.h>     // isatty

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

namespace murmur {
namespace {

constexpr const char *kPlain = "", *kBold = "\x1b[1m", *kDim = "\x1b[2m", *kCyan = "\x1b[36m";
constexpr const char *kRed = "\x1b[31m", *kReset = "\x1b[0m", *kEraseRest = "\x1b[K";
constexpr auto kRedrawEvery = std::chrono::milliseconds(100), kLineEvery = 100 * kRedrawEvery;
constexpr double kLossMemory = 0.95;  // the shown loss averages about the last 20 steps
constexpr int kWidestBar = 24, kNarrowestBar = 6;

struct Piece {
  std::string text;
  const char* color;
};

int terminal_width(std::FILE* stream) {
  winsize size{};
  const bool known = ::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

// https://no-color.org: set and not empty
bool wants_color() {
  const char* no_color = std::getenv("NO_COLOR");
  return no_color == nullptr || *no_color == '\0';
}

std::string loss_text(double loss) {
  return std::abs(loss) < 1e4 ? fmt::format("loss {:.4f}", loss) : fmt::format("loss {:.4g}", loss);
}

// Unlike fmt::print, without an exception when nobody can read: a run must not die of its display.
void show(std::FILE* stream, const std::string& text) {
  std::fputs(text.c_str(), stream);
  std::fflush(stream);
}

std::string time_text(const ProgressState& state) {
  return fmt::format("{} elapsed, {} left", duration_text(state.elapsed_s),
                     duration_text(seconds_left(state)));
}

// "[====>     ]", `width` columns in all
std::string bar(const ProgressState& state, int width) {
  const int inside = width - 2;
  const double part =
      state.total_steps > 0
          ? std::clamp(static_cast<double>(state.step) / state.total_steps, 0.0, 1.0)
          : 0;
  const int done = static_cast<int>(part * inside);
  std::string filled(done, '=');
  if (done < inside) filled += '>';
  return fmt::format("[{:<{}}]", filled, inside);
}

}  // namespace

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "-:--";
  const int64_t all = std::llround(seconds);
  const int64_t s = all % 60, m = all / 60 % 60, h = all / 3600 % 24, d = all / 86400;
  if (d > 0) return fmt::format("{}d {:02}:{:02}", d, h, m);
  if (h > 0) return fmt::format("{}:{:02}:{:02}", h, m, s);
  return fmt::format("{}:{:02}", m, s);
}

std::string rate_text(double tokens_per_s) {
  if (!(tokens_per_s >= 0) || std::isinf(tokens_per_s)) return "- tok/s";
  if (tokens_per_s < 999.5) return fmt::format("{:.0f} tok/s", tokens_per_s);
  if (tokens_per_s < 999.95e3) return fmt::format("{:.1f}k tok/s", tokens_per_s / 1e3);
  return fmt::format("{:.2f}M tok/s", tokens_per_s / 1e6);
}

double seconds_left(const ProgressState& state) {
  const int64_t done = state.step - state.start_step;
  if (done <= 0) return std::numeric_limits<double>::quiet_NaN();
  return state.elapsed_s / done * std::max<int64_t>(state.total_steps - state.step, 0);
}

std::string progress_line(const ProgressState& state, int width) {
  const std::string total = fmt::format("{}", state.total_steps);
  std::vector<Piece> pieces = {
      {fmt::format("{:>{}}/{}", state.step, total.size(), total), kPlain},
      {"  " + loss_text(state.loss), std::isfinite(state.loss) ? kBold : kRed},
      {"  " + rate_text(state.tokens_per_s), kPlain},
      {"  " + time_text(state), kDim},
  };
  if (!state.title.empty()) pieces.insert(pieces.begin(), {state.title + "  ", kPlain});
  int room = width;
  for (const Piece& piece : pieces) room -= static_cast<int>(piece.text.size());
  if (const int bar_width = std::min(room - 1, kWidestBar); bar_width >= kNarrowestBar) {
    pieces.insert(pieces.end() - 3, {" " + bar(state, bar_width), kCyan});
  }
  std::string line;
  int left = width;
  for (const Piece& piece : pieces) {
    const int size = static_cast<int>(piece.text.size());
    if (size > left) break;
    left -= size;
    const bool colored = state.color && *piece.color != '\0';
    line += colored ? piece.color + piece.text + kReset : piece.text;
  }
  return line;
}

std::string plain_line(const ProgressState& state) {
  return fmt::format("{}{}step {}/{}  {}  lr {:.2e}  {}  {}", state.title,
                     state.title.empty() ? "" : "  ", state.step, state.total_steps,
                     loss_text(state.loss), state.lr, rate_text(state.tokens_per_s),
                     time_text(state));
}

bool is_live_terminal(std::FILE* stream) {
  const char* terminal = std::getenv("TERM");
  return ::isatty(::fileno(stream)) == 1 && terminal && std::string_view(terminal) != "dumb";
}

Progress::Progress(int64_t total_steps, std::FILE* stream, bool is_terminal, int64_t log_every,
                   int64_t start_step)
    : total_steps_(total_steps),
      start_step_(start_step),
      log_every_(std::max<int64_t>(log_every, 1)),
      stream_(stream),
      is_terminal_(is_terminal),
      color_(wants_color()),
      start_(Clock::now()) {}

Progress::~Progress() {
  try {
    finish();
  } catch (...) {  // no memory for a line of text: nothing a destructor could do about it
  }
}

void Progress::update(int64_t step, double loss, double lr, double tokens_per_s) {
  step_ = step;
  lr_ = lr;
  tokens_per_s_ = tokens_per_s;
  if (std::isfinite(loss)) {
    loss_sum_ = kLossMemory * loss_sum_ + (1 - kLossMemory) * loss;
    loss_weight_ = kLossMemory * loss_weight_ + (1 - kLossMemory);
    loss_ = loss_sum_ / loss_weight_;
  } else {  // shown as it is; the average starts anew behind it
    loss_sum_ = loss_weight_ = 0;
    loss_ = loss;
  }
  finished_ = false;
  if (is_terminal_) {
    const bool due = shown_step_ < 0 || Clock::now() - drawn_at_ >= kRedrawEvery;
    if (due || step == total_steps_) draw();
  } else if (step % log_every_ == 0 || step == total_steps_) {
    print_plain();
  }
}

ProgressState Progress::state() const {
  const double elapsed_s = std::chrono::duration<double>(Clock::now() - start_).count();
  return {step_, total_steps_, start_step_, loss_, lr_, tokens_per_s_, elapsed_s, color_, title_};
}

void Progress::draw() {
  // One column stays free: a full line makes some terminals wrap.
  const std::string line = progress_line(state(), terminal_width(stream_) - 1);
  show(stream_, "\r" + line + kEraseRest);
  drawn_at_ = Clock::now();
  shown_step_ = step_;
}

void Progress::print_plain() {
  show(stream_, plain_line(state()) + "\n");
  shown_step_ = step_;
}

void Progress::message(std::string_view text) {
  const std::string clear = is_terminal_ ? std::string("\r") + kEraseRest : "";
  show(stream_, fmt::format("{}{}\n", clear, text));
  if (is_terminal_ && shown_step_ >= 0 && !finished_) draw();
}

void Progress::begin(std::string title) {
  title_ = std::move(title);
  loss_sum_ = loss_weight_ = 0;
}

void Progress::finish() {
  if (finished_ || step_ < 0) return;
  finished_ = true;
  if (!is_terminal_) {
    if (shown_step_ != step_) print_plain();
    return;
  }
  draw();
  show(stream_, "\n");
}

ValidationProgress::ValidationProgress(std::FILE* stream)
    : ValidationProgress(stream, is_live_terminal(stream),
                         is_live_terminal(stream) ? kRedrawEvery : kLineEvery) {}

ValidationProgress::ValidationProgress(std::FILE* stream, bool is_terminal,
                                       std::chrono::milliseconds every)
    : stream_(stream), is_terminal_(is_terminal), every_(every) {}

ValidationProgress::~ValidationProgress() {
  if (is_terminal_ && shown_at_ != start_) show(stream_, std::string("\r") + kEraseRest);
}

void ValidationProgress::update(int64_t done, int64_t total) {
  const auto now = Clock::now();
  if (now - shown_at_ < every_ || now == start_) return;
  shown_at_ = now;
  const double elapsed_s = std::chrono::duration<double>(now - start_).count();
  const std::string text =
      fmt::format("validation {}/{} batches  {}", done, total,
                  time_text({.step = done, .total_steps = total, .elapsed_s = elapsed_s}));
  const auto width = static_cast<std::size_t>(std::max(0, terminal_width(stream_) - 1));
  show(stream_, is_terminal_ ? "\r" + text.substr(0, width) + kEraseRest : text + "\n");
}

}  // namespace murmur
