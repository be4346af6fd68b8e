#include "backend/cpu/linear_tasks.h"

#include <algorithm>
#include <utility>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scratch.h"
#include "base/check.h"

namespace logitlab {
namespace {

// Most weights of one task of a matrix-vector product. A thread that reads long runs gets more from
// the memory: with this and the kernels' prefetch of one run, two threads read BF16 rows of 2688 at
// 65.5 GB/s of the 77.5 that reading alone gives; with tasks of 64 KiB and a prefetch row by row
// it was 48.
constexpr size_t kGemvTaskBytes = 512 << 10;
constexpr int64_t kTasksPerThread = 8;
// Rows of x below which splitting them costs more decoding of weights than it wins.
constexpr int64_t kLeastRowsOfTask = 32;

// A multiple of 4, the number of outputs that a kernel computes at once.
int64_t gemv_outputs(const Tensor& weight, size_t task_bytes) {
  const size_t row = std::max<size_t>(weight.row_stride_bytes(), 1);
  return round_up(static_cast<int64_t>(task_bytes / row) + 1, 4);
}

}  // namespace

LinearTasks::LinearTasks(std::vector<Product> products, int n_threads)
    : products_(std::move(products)) {
  std::stable_sort(products_.begin(), products_.end(),
                   [](const Product& a, const Product& b) { return a.rows > b.rows; });
  size_t gemv_bytes = 0;
  int64_t n_panels = 0;
  for (const Product& product : products_) {
    if (product.rows == 1) {
      gemv_bytes += product.weight.bytes();
    } else if (product.rows > 1) {
      n_panels += divide_up(product.weight.rows(), kMaxGemmOutputs);
      decoded_inputs_ = std::max(decoded_inputs_, round_up(product.weight.columns(), kDotPadding));
    }
  }
  const size_t share = gemv_bytes / static_cast<size_t>(n_threads * kTasksPerThread) + 1;
  const size_t task_bytes = std::min(kGemvTaskBytes, share);
  const int64_t splits = divide_up(n_threads * kTasksPerThread / 2, std::max<int64_t>(n_panels, 1));
  cuts_.reserve(products_.size());
  for (const Product& product : products_) {
    Cut cut;
    cut.first_task = n_tasks_;
    if (product.rows <= 1) {
      cut.rows = 1;
      cut.outputs = gemv_outputs(product.weight, task_bytes);
    } else {
      cut.rows = std::max(kLeastRowsOfTask, round_up(divide_up(product.rows, splits), 4));
      cut.outputs = kMaxGemmOutputs;
    }
    cut.row_tasks = divide_up(product.rows, cut.rows);
    n_tasks_ += divide_up(product.weight.rows(), cut.outputs) * cut.row_tasks;
    cuts_.push_back(cut);
  }
}

LinearTasks::Task LinearTasks::task(int64_t index) const {
  DCHECK(index >= 0 && index < n_tasks_);
  // The last cut that begins at or before the task; those without tasks begin where the next does.
  const auto after =
      std::upper_bound(cuts_.begin(), cuts_.end(), index,
                       [](int64_t task, const Cut& cut) { return task < cut.first_task; });
  const Cut& cut = *(after - 1);
  const Product& product = products_[static_cast<size_t>(after - 1 - cuts_.begin())];
  index -= cut.first_task;
  const int64_t output = index / cut.row_tasks * cut.outputs;
  const int64_t row = index % cut.row_tasks * cut.rows;
  return Task{&product, output, std::min(cut.outputs, product.weight.rows() - output), row,
              std::min(cut.rows, product.rows - row)};
}

}  // namespace logitlab
