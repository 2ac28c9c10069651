// optim/muonclip.cpp - MuonClip (Kimi K2, arXiv 2507.20534): Moonlight's Muon, and queries and keys
// that shrink when their scores grow too large (optim/qk_clip.h):
//
//   d = 0.2 sqrt(max(m, n)) orthogonalize(u)                        optim/muon.cpp, form moonlight
//   after the step, for every head:  gamma = min(1, 100 / largest score)
//                                    W_q, W_k, b_q, b_k <- sqrt(gamma) times themselves
#include "optim/optimizer.h"

namespace murmur {

std::unique_ptr<Optimizer> make_muon();

std::unique_ptr<Optimizer> make_muonclip() {
  std::unique_ptr<Optimizer> muon = make_muon();
  configure(*muon, "muonclip", {{"form", "moonlight"}, {"qk_clip", "100"}});
  return muon;
}

}  // namespace murmur
