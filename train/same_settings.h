// train/same_settings.h - ranks of one run are told the same, by whatever started them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "train/config.h"
#include "train/data.h"

namespace murmur {

// Every setting, resolved; make_config() of them is the same configuration.
std::vector<Assignment> all_settings(const Config& config);

// What must be the same on all ranks: all settings but paths, threads and how often is printed, the
// data by what it holds, the program's revision, and how the run is gone on with.
std::vector<Assignment> shared_settings(const Config& config, const Dataset& data, bool resume,
                                        std::optional<int64_t> from);

// InputError, on every rank: what some were told otherwise, and who.
void require_same_settings(Communicator& c, const std::vector<Assignment>& own);

// Settings as a text that can be sent, and back.
std::string packed(const std::vector<Assignment>& settings);
std::vector<Assignment> unpacked(const std::string& text);

}  // namespace murmur
