// train/compare_over.h - the same race in several settings: on several graphs, with several
// partitions of the data. One folder each, and one table of all.
#pragma once

#include <string>
#include <vector>

#include "train/compare.h"

namespace murmur {

// "topology=ring,complete;partition=iid,by-document": every combination, the last setting fastest.
// InputError where it is no such list.
std::vector<std::vector<Assignment>> combinations(const std::string& over);

// Races in OUT/topology=ring,partition=iid/ .. and writes OUT/over.md, over.json: the mean last
// loss of every contender in every setting, and who is shown to be better. The same command goes
// on. The exit code.
int compare_over(const CompareOptions& options, const std::string& over);

// The experiment of DeMuon's authors, as their code sets it up: model, batch, steps, and each
// method's own rate, schedule and momentum on this topology (docs/decentralised.md says what
// differs, and why losses are not comparable). Sets what `options` leaves open, and says so in a
// few words.
std::string paper_setup(CompareOptions& options);

}  // namespace murmur
