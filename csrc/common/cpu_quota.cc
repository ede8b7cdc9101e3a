#include "common/cpu_quota.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace cgnrt {
namespace {

struct Mount {
  std::string root;   // the cgroup that is mounted
  std::string point;  // where
  std::string kind;   // "cgroup" or "cgroup2"
  std::string options;
};

bool lists(const std::string& words, const std::string& word) {
  std::istringstream from(words);
  for (std::string found; std::getline(from, found, ',');) {
    if (found == word) return true;
  }
  return false;
}

// The kernel writes spaces and backslashes of a path as \040.
std::string unescaped(const std::string& path) {
  std::string plain;
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '\\' && i + 3 < path.size()) {
      plain += static_cast<char>((path[i + 1] - '0') * 64 + (path[i + 2] - '0') * 8 + (path[i + 3] - '0'));
      i += 3;
    } else {
      plain += path[i];
    }
  }
  return plain;
}

std::vector<Mount> cgroup_mounts(const std::string& root) {
  std::vector<Mount> mounts;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    // 31 23 0:26 /docker/abc /sys/fs/cgroup/cpu ro,nosuid master:9 - cgroup cgroup rw,cpu,cpuacct
    std::istringstream fields(line);
    std::string skipped, from, point, source;
    fields >> skipped >> skipped >> skipped >> from >> point;
    while (fields >> skipped && skipped != "-") {
    }
    Mount mount;
    fields >> mount.kind >> source >> mount.options;
    if (mount.kind != "cgroup2" && !(mount.kind == "cgroup" && lists(mount.options, "cpu"))) continue;
    mount.root = unescaped(from);
    mount.point = unescaped(point);
    mounts.push_back(mount);
  }
  return mounts;
}

// CPUs by the files of one cgroup; null without a quota.
std::optional<double> quota_of(const std::string& folder, bool v2) {
  double quota = -1, period = 0;
  if (v2) {
    std::ifstream file(folder + "/cpu.max");  // "max 100000" without a quota
    file >> quota >> period;
  } else {
    std::ifstream quota_file(folder + "/cpu.cfs_quota_us");  // -1 without one
    std::ifstream period_file(folder + "/cpu.cfs_period_us");
    quota_file >> quota;
    period_file >> period;
  }
  if (!(quota > 0) || !(period > 0)) return std::nullopt;
  return quota / period;
}

// The path of a cgroup below its mount: "" or "/a/b".
std::string below_mount(const std::string& path, const Mount& mount) {
  if (path.find("/..") != std::string::npos) return "";  // outside of what this process sees
  std::string below = path;
  if (mount.root != "/") {
    const bool inside = path.compare(0, mount.root.size(), mount.root) == 0 &&
                        (path.size() == mount.root.size() || path[mount.root.size()] == '/');
    below = inside ? path.substr(mount.root.size()) : "";
  }
  while (!below.empty() && below.back() == '/') below.pop_back();
  return below;
}

}  // namespace

std::optional<int> cpu_quota(const std::string& root) {
  const std::vector<Mount> mounts = cgroup_mounts(root);
  std::optional<double> least;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    // 4:cpu,cpuacct:/docker/abc, and of cgroup v2 0::/docker/abc
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && !lists(controllers, "cpu")) continue;
    for (const Mount& mount : mounts) {
      if ((mount.kind == "cgroup2") != v2) continue;
      std::string below = below_mount(line.substr(second + 1), mount);
      for (;;) {  // up to the mount: every cgroup around this one limits it, too
        const std::optional<double> found = quota_of(root + mount.point + below, v2);
        if (found) least = std::min(least.value_or(*found), *found);
        if (below.empty()) break;
        below.erase(below.rfind('/'));
      }
    }
  }
  if (!least) return std::nullopt;
  return static_cast<int>(std::clamp(std::ceil(*least), 1.0, static_cast<double>(INT_MAX)));
}

}  // namespace cgnrt
