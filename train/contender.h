// train/contender.h - who takes part in a race: an optimizer or a recipe, its settings, the rates
// to try.
//
//   adamw, muon, muon:momentum=0.9, muon:lr=0.01|0.02|0.04;momentum=0.9, demuon,
//   muon:strategy=gossip;strategy.order=cta
#pragma once

#include <map>
#include <string>
#include <vector>

#include "train/config.h"

namespace murmur {

struct Contender {
  std::string label;      // as it was typed, without rates
  std::string optimizer;  // "muon", or the name of a recipe
  // Without the rate, by full name: "optimizer.momentum", "auxiliary", "auxiliary.lr".
  std::map<std::string, std::string> settings;
  std::vector<double> rates;  // ascending, at least one; several: to be tuned
  std::string folder;         // "muon_momentum=0.9": the same for all of its rates
};

// Settings of a whole run that a contender may have for itself; all others are shared.
bool may_be_own(const std::string& setting);

// `factors`: "0.5,1,2" times the default rate of each contender that names none itself; "": once.
// InputError where a name, setting or rate is wrong, and where contenders would be tuned with
// unequal numbers of rates.
std::vector<Contender> parse_contenders(const std::string& text, const std::string& factors);

// `shared` is what all contenders have in common.
Config contender_config(const std::vector<Assignment>& shared, const Contender& contender,
                        double rate);

}  // namespace murmur
