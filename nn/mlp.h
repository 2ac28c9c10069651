// nn/mlp.h - the feed-forward branch: widen four times, bend, narrow.
#pragma once

#include "nn/linear.h"

namespace murmur {

class Mlp {
 public:
  Mlp(Parameters& parameters, const std::string& name, int64_t width, Unary activation, bool bias,
      double deviation, double out_deviation)
      : activation_(activation),
        in_(parameters, name + ".c_fc", width, 4 * width, bias, deviation),
        out_(parameters, name + ".c_proj", 4 * width, width, bias, out_deviation) {}

  Var operator()(const Var& x) const {
    return mlp(x, in_.weight(), in_.bias(), activation_, out_.weight(), out_.bias());
  }

 private:
  Unary activation_;
  Linear in_, out_;
};

}  // namespace murmur
