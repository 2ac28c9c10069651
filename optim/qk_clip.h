// optim/qk_clip.h - attention scores that cannot run away (MuonClip; Kimi K2, arXiv 2507.20534).
#pragma once

#include "nn/parameter.h"

namespace murmur {

// For every head of every packed projection whose largest score S of this step was measured
// (Parameter::largest_scores):
//
//   gamma = min(1, limit / S);  rows of W_q, W_k and entries of b_q, b_k of the head times
//   sqrt(gamma)
//
// so that the same inputs would give gamma S.
void qk_clip(Parameters& parameters, double limit);

}  // namespace murmur
