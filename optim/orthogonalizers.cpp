// optim/orthogonalizers.cpp - published coefficients, by name.
#include "optim/orthogonalizers.h"

#include "tensor/nearest.h"

namespace murmur {
namespace {

std::vector<Quintic> times(size_t count, const Quintic& one) {
  return std::vector<Quintic>(count, one);
}

std::vector<Quintic> joined(std::vector<Quintic> first, const std::vector<Quintic>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

constexpr Quintic kJordan{3.4445, -4.7750, 2.0315};
constexpr Quintic kClassic{2, -1.5, 0.5};

// Polar Express (Amsel et al., arXiv 2505.16932): the best polynomial for the interval that the
// ones before it left. p(x / s), s > 1, keeps rounding errors from pushing a value out of the
// interval; the last polynomial converges for values above 1 too and stays as it is.
std::vector<Quintic> polar_express(double s) {
  std::vector<Quintic> list = {
      {8.28721201814563, -23.595886519098837, 17.300387312530933},
      {4.107059111542203, -2.9478499167379106, 0.5448431082926601},
      {3.9486908534822946, -2.908902115962949, 0.5518191394370137},
      {3.3184196573706015, -2.488488024314874, 0.51004894012372},
      {2.300652019954817, -1.6689039845747493, 0.4188073119525673},
      {1.891301407787398, -1.2679958271945868, 0.37680408948524835},
      {1.8750014808534479, -1.2500016453999487, 0.3750001645474248},
      {1.875, -1.25, 0.375},
  };
  for (size_t i = 0; i + 1 < list.size(); i++) {
    Quintic& p = list[i];
    p = {p.a / s, p.b / (s * s * s), p.c / (s * s * s * s * s)};
  }
  return list;
}

}  // namespace

const std::vector<Orthogonalizer>& orthogonalizer_list() {
  static const std::vector<Orthogonalizer> list = {
      {"jordan5", "Newton-Schulz, one quintic for all steps (Jordan et al., 2024)",
       times(5, kJordan), 5},
      {"you5",
       "Newton-Schulz, a quintic for each of five steps (You, 2024)",
       {{4.0848, -6.8946, 2.9270},
        {3.9505, -6.3029, 2.6377},
        {3.7418, -5.5913, 2.3037},
        {2.8769, -3.1427, 1.2046},
        {2.8366, -3.0525, 1.2012}},
       5},
      {"polar_express",
       "Polar Express as speedruns use it: cushioned, safety 1.02",
       {{8.156554524902461, -22.48329292557795, 15.878769915207462},
        {4.042929935166739, -2.808917465908714, 0.5000178451051316},
        {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
        {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
        {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}},
       5,
       1.02,
       1e-6},
      {"polar_express_raw",
       "Polar Express (Amsel et al., arXiv 2505.16932), no safety factor: in fp32",
       polar_express(1), 5, 1, 1e-7, false, true},
      {"polar_express_101", "Polar Express, safety factor 1.01 in the polynomials",
       polar_express(1.01), 5},
      {"polar_express_105", "Polar Express, safety factor 1.05 in the polynomials: for Gram form",
       polar_express(1.05), 5},
      {"cans",
       "Chebyshev-type optimal Newton-Schulz (Grishina et al., arXiv 2506.10935): in fp32",
       {{8.4703, -25.1081, 18.6293},
        {4.1828, -3.1087, 0.5806},
        {3.9619, -2.9541, 0.5630},
        {3.2866, -2.4647, 0.5074},
        {2.2737, -1.6447, 0.4162}},
       5,
       1,
       1e-7,
       false,
       true},
      // The first polynomial turns values above 0.884 into negative ones, and AOL leaves a matrix
      // of rank one with exactly 1: hence the safety, which is not in the publication.
      {"aol",
       "four steps after AOL preconditioning (Boissin et al., arXiv 2512.04632)",
       {{4.0098, -7.0585, 2.4635},
        {3.4585, -5.5479, 2.5959},
        {2.7573, -3.2939, 1.4254},
        {2.7215, -3.0494, 1.3169}},
       4,
       1.2,
       1e-7,
       true},
      {"aol_dion",
       "four steps after AOL preconditioning, coefficients of the Dion repository",
       {{4.6051, -9.6552, 5.6769},
        {4.7505, -6.0861, 2.1790},
        {2.7763, -2.3190, 0.5523},
        {2.4231, -2.2861, 0.8193}},
       4,
       1,
       1e-7,
       true},
      {"cubic5",
       "five cubic steps (arXiv 2606.00371): no product of the Gram matrix with itself",
       {{3.3656576, -3.3420992, 0},
        {2.5744352, -1.4957376, 0},
        {2.5368962, -1.4312570, 0},
        {2.4418906, -1.2764040, 0},
        {2.2230472, -0.9630650, 0}},
       5},
      {"deepseekv4", "eight of Jordan's steps, two that converge",
       joined(times(8, kJordan), times(2, kClassic)), 10},
      {"classic12", "twelve steps of (2, -1.5, 0.5), which converge to the polar factor",
       times(12, kClassic), 12},
      {"exact",
       "the polar factor by SVD in double precision on the CPU: a slow reference",
       {},
       0,
       1,
       1e-7,
       false,
       true},
  };
  return list;
}

const Orthogonalizer& find_orthogonalizer(const std::string& name) {
  return find_named("orthogonalizer", orthogonalizer_list(), name);
}

}  // namespace murmur
