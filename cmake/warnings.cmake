# Warnings for our own targets only; they are not passed on to those who link the library.
add_library(lorikeet_warnings INTERFACE)
target_compile_options(lorikeet_warnings INTERFACE
  -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wwrite-strings
  -Wno-format-truncation) # messages are cut to their buffer on purpose
if(LK_WARNINGS_AS_ERRORS)
  target_compile_options(lorikeet_warnings INTERFACE -Werror)
endif()
