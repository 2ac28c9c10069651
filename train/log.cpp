// train/log.cpp - rows to lines and back.
//
//   damaged tail   what stands behind the last line that parses: the process was killed while it
//                  wrote, or the disk lost the end. It is left out, and that is said. A line
//                  without its end that does parse is whole, and kept.
#include "train/log.h"

#include <fmt/format.h>
#include <unistd.h>  // ftruncate

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <tuple>    // tie
#include <utility>  // pair

#include "tensor/check.h"
#include "train/files.h"  // read_file, write_file_durably
#include "train/json.h"
#include "train/plot.h"

namespace murmur {
namespace {

// ------------------------------------------------------------------------------------- the format

// The one list of columns: writing and reading walk through it.
template <class Row, class Visit>
void for_each_column(Row& row, Visit visit) {
  visit("step", row.step);
  visit("tokens", row.tokens);
  visit("train_loss", row.train_loss);
  visit("lr", row.lr);
  visit("grad_norm", row.grad_norm);
  visit("step_ms", row.step_ms);
  visit("tokens_per_s", row.tokens_per_s);
  visit("val_loss", row.val_loss);
  visit("bits_per_byte", row.bits_per_byte);
  visit("consensus", row.consensus);
  visit("nodes", row.nodes);
  visit("consensus_spectral", row.consensus_spectral);
  visit("tracker_error", row.tracker_error);
  visit("node_train_loss", row.node_train_loss);
  visit("node_val_loss", row.node_val_loss);
}

std::string number(int64_t value) { return fmt::format("{}", value); }
std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == text.npos) text += ".0";  // as an integer, -0 would lose its sign
  return text;
}

struct Writer {
  std::string& line;

  template <class Number>
  void operator()(const char* key, const Number& value) {
    line += fmt::format("{}\"{}\":{}", line.empty() ? "{" : ",", key, number(value));
  }
  template <class Number>
  void operator()(const char* key, const std::optional<Number>& value) {
    if (value) (*this)(key, *value);
  }
  void operator()(const char* key, const std::vector<double>& values) {
    if (values.empty()) return;
    std::string list;
    for (double value : values) list += (list.empty() ? "" : ",") + number(value);
    line += fmt::format(",\"{}\":[{}]", key, list);
  }
};

// Throws Error with what is wrong; the caller knows file and line.
struct Reader {
  const nlohmann::json& object;

  const nlohmann::json& at(const char* key) const {
    check(object.contains(key), [&] { return fmt::format("the key '{}' is missing", key); });
    return object.at(key);
  }
  void operator()(const char* key, int64_t& value) const {
    const std::optional<int64_t> found = whole_number(at(key));
    check(found.has_value(), [&] { return fmt::format("'{}' is no whole number", key); });
    value = *found;
  }
  void operator()(const char* key, double& value) const {
    const nlohmann::json& found = at(key);
    check(found.is_number() || found.is_null(),
          [&] { return fmt::format("'{}' is no number", key); });
    value = found.is_null() ? std::numeric_limits<double>::quiet_NaN() : found.get<double>();
  }
  template <class Number>
  void operator()(const char* key, std::optional<Number>& value) const {
    if (object.contains(key)) (*this)(key, value.emplace());
  }
  void operator()(const char* key, std::vector<double>& values) const {
    if (!object.contains(key)) return;
    check(object.at(key).is_array(), [&] { return fmt::format("'{}' is no list", key); });
    for (const nlohmann::json& value : object.at(key)) {
      check(value.is_number() || value.is_null(),
            [&] { return fmt::format("'{}' holds something that is no number", key); });
      values.push_back(value.is_null() ? std::numeric_limits<double>::quiet_NaN()
                                       : value.get<double>());
    }
  }
};

LogRow parsed(std::string_view line) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  check(object.is_object(), "not a JSON object");
  LogRow row;
  for_each_column(row, Reader{object});
  return row;
}

struct Line {
  std::string_view text;  // without its end
  LogRow row;
};

struct Lines {
  std::vector<Line> whole;
  std::string damage;  // of the line behind them; or ""
};

// `bytes` is the content of the file at `path`, and must outlive the result.
Lines lines_of(std::string_view bytes, const std::string& path) {
  Lines lines;
  std::string& damage = lines.damage;
  for (std::size_t start = 0, count = 1; start < bytes.size(); count++) {
    const std::size_t end = std::min(bytes.find('\n', start), bytes.size());
    const std::string_view text = bytes.substr(start, end - start);
    try {
      LogRow row = parsed(text);
      if (!damage.empty()) throw InputError(damage + "; repair or remove this line");
      lines.whole.push_back({text, row});
    } catch (const InputError&) {
      throw;
    } catch (const Error& error) {
      if (damage.empty()) damage = fmt::format("{}:{}: {}", path, count, error.what());
    }
    start = end + 1;
  }
  return lines;
}

// The last row that is left, and where its line begins.
std::pair<std::optional<LogRow>, long> drop_rows_after(int64_t step, const std::string& path) {
  const std::string bytes = read_file(path, kAnySize);
  std::string kept;
  std::pair<std::optional<LogRow>, long> last;
  const Lines lines = lines_of(bytes, path);
  for (const Line& line : lines.whole) {
    if (line.row.step > step) continue;
    last = {line.row, long(kept.size())};
    kept.append(line.text).append("\n");
  }
  if (!lines.damage.empty()) {
    std::fputs(fmt::format("murmur: {}; the log is cut before this line\n", lines.damage).c_str(),
               stderr);
  }
  write_file_durably(path, kept);
  return last;
}

[[noreturn]] void fail(const std::string& path, const char* action) {
  const std::string reason = std::generic_category().message(errno);
  throw Error(fmt::format("{}: cannot {} the log: {}", path, action, reason));
}

// ---------------------------------------------------------------------------------------- the plot

constexpr std::size_t kTooFewToSmooth = 50, kTooManyForMarkers = 60;

// The mean of the finite values around each value: centred and at first narrow, so that it does not
// lag behind a steep start; at the end, where only one side is left, over that.
std::vector<double> smoothed(const std::vector<double>& values) {
  const std::size_t n = values.size(), widest = std::max<std::size_t>(n / 50, 5);
  std::vector<double> sum(n + 1), count(n + 1), out(n);
  for (std::size_t i = 0; i < n; i++) {
    const bool finite = std::isfinite(values[i]);
    sum[i + 1] = sum[i] + (finite ? values[i] : 0);
    count[i + 1] = count[i] + finite;
  }
  for (std::size_t i = 0; i < n; i++) {
    const std::size_t half = std::min(i / 4, widest);
    const std::size_t from = i - half, to = std::min(i + half + 1, n);
    out[i] =
        std::isfinite(values[i]) ? (sum[to] - sum[from]) / (count[to] - count[from]) : values[i];
  }
  return out;
}

std::string with_last(const char* name, const std::vector<double>& values) {
  return fmt::format("{}, last {:.3f}", name, values.back());
}

}  // namespace

std::string log_line(const LogRow& row) {
  std::string line;
  for_each_column(row, Writer{line});
  return line + "}";
}

std::vector<LogRow> read_log(const std::string& path) {
  const std::string bytes = read_file(path, kAnySize);
  std::vector<LogRow> rows;
  for (const Line& line : lines_of(bytes, path).whole) rows.push_back(line.row);
  return rows;
}

RunLog::RunLog(std::string path, std::optional<int64_t> resume_step)
    : path_(std::move(path)), file_(nullptr, std::fclose) {
  if (resume_step && path_exists(path_))
    std::tie(last_, last_begin_) = drop_rows_after(*resume_step, path_);
  else
    write_file_durably(path_, "");
  file_.reset(std::fopen(path_.c_str(), "r+b"));
  if (!file_ || std::fseek(file_.get(), 0, SEEK_END) != 0) fail(path_, "open");
}

void RunLog::write_at(long begin, const LogRow& row) {
  const std::string line = log_line(row) + "\n";
  bool written = std::fseek(file_.get(), begin, SEEK_SET) == 0;
  written = written && std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size();
  if (!written || std::fflush(file_.get()) != 0) fail(path_, "write");
  last_ = row;
  last_begin_ = begin;
}

void RunLog::append(const LogRow& row) { write_at(std::ftell(file_.get()), row); }

void RunLog::complete(const LogRow& row) {
  check(last_ && last_->step == row.step, "log: only the last row can be completed");
  write_at(last_begin_, row);
  if (::ftruncate(::fileno(file_.get()), std::ftell(file_.get())) != 0) fail(path_, "write");
}

void plot_log(const std::vector<LogRow>& rows, const std::string& path, const std::string& title) {
  Curve train, validation;
  for (const LogRow& row : rows) {
    const double step = static_cast<double>(row.step);
    train.x.push_back(step);
    train.y.push_back(row.train_loss);
    if (!row.val_loss) continue;
    validation.x.push_back(step);
    validation.y.push_back(*row.val_loss);
  }
  Plot plot{.title = title, .x_label = "step", .y_label = "loss (nats per token)"};
  if (train.y.size() >= kTooFewToSmooth) {
    Curve raw = train;
    raw.faint = true;
    plot.curves.push_back(raw);
    train.y = smoothed(train.y);
  }
  if (!train.y.empty()) {
    train.label = with_last("training loss", train.y);
    plot.curves.push_back(train);
  }
  if (!validation.y.empty()) {
    validation.label = with_last("validation loss", validation.y);
    validation.markers = validation.y.size() < kTooManyForMarkers;
    plot.curves.push_back(validation);
  }
  write_png(plot, path);
}

}  // namespace murmur
