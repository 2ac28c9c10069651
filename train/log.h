// train/log.h - RUN/log.jsonl: what happened at each step, one JSON object a line.
//
//   {"step":100,"tokens":76800,"train_loss":2.4131999015808105,"lr":0.0003,"grad_norm":0.71,
//    "step_ms":41.6,"tokens_per_s":18461.5,"val_loss":2.43,"bits_per_byte":3.5}     (on one line)
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace murmur {

// Losses in nats per token. A value that is not finite is written as null and read as NaN, because
// JSON has no word for it.
struct LogRow {
  int64_t step = 0, tokens = 0;
  double train_loss = 0, lr = 0, grad_norm = 0, step_ms = 0, tokens_per_s = 0;
  std::optional<double> val_loss{}, bits_per_byte{};  // on evaluation steps
  std::optional<int64_t> nodes{};                     // on several nodes
  // Where nodes have weights of their own, on evaluation steps (dist/disagreement.h): their
  // distances, how far the trackers' mean is from that of the gradients (relative), losses of
  // single nodes.
  std::optional<double> consensus{}, consensus_spectral{}, tracker_error{};
  std::vector<double> node_train_loss{}, node_val_loss{};  // the latter on part of the text
};

class RunLog {
 public:
  // Starts the file anew. With `resume_step` k it goes on behind step k instead: rows with a larger
  // step and a damaged end are dropped, so that every step stands there once; damage is said on
  // stderr.
  explicit RunLog(std::string path, std::optional<int64_t> resume_step = std::nullopt);

  void append(const LogRow& row);    // in the file when it returns, so that a killed run keeps it
  void complete(const LogRow& row);  // the last one, which was without a validation

  const std::optional<LogRow>& last() const { return last_; }

 private:
  void write_at(long begin, const LogRow& row);

  std::string path_;
  std::optional<LogRow> last_;
  long last_begin_ = 0;  // of its line, in the file
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

// Up to a damaged end, as a crash leaves it. InputError (file, line) on a malformed line before
// whole ones.
std::vector<LogRow> read_log(const std::string& path);

// The line of a row, without its end. Numbers are the shortest text that reads back as the same
// bits, so that two logs agree exactly when their values do.
std::string log_line(const LogRow& row);

// Training loss, raw and smoothed, and validation loss over steps, as a PNG.
void plot_log(const std::vector<LogRow>& rows, const std::string& path,
              const std::string& title = "training run");

}  // namespace murmur
