#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace ggufext {

/// What a core function says when it cannot do its work. The core throws nothing: the binding
/// turns a failed Status into the Python error of the same code, field and offset.
class [[nodiscard]] Status {
 public:
  static Status ok() { return Status(); }

  static Status error(std::string code, std::string message, std::string field = {},
                      std::optional<uint64_t> offset = std::nullopt) {
    Status status;
    status.code_ = std::move(code);
    status.message_ = std::move(message);
    status.field_ = std::move(field);
    status.offset_ = offset;
    return status;
  }

  bool is_ok() const { return code_.empty(); }
  const std::string& code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& field() const { return field_; }
  std::optional<uint64_t> offset() const { return offset_; }

 private:
  std::string code_;
  std::string message_;
  std::string field_;
  std::optional<uint64_t> offset_;
};

}  // namespace ggufext

/// Hands a failed Status on to the caller.
#define RETURN_IF_ERROR(expression)                                                 \
  do {                                                                              \
    if (::ggufext::Status status_ = (expression); !status_.is_ok()) return status_; \
  } while (false)
