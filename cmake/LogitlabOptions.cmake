# Language level, warnings, sanitizers: the same for every target of the project.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(LOGITLAB_CCACHE ccache)
if(LOGITLAB_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${LOGITLAB_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${LOGITLAB_CCACHE})
endif()

add_library(logitlab_flags INTERFACE)
target_include_directories(logitlab_flags INTERFACE ${PROJECT_SOURCE_DIR}/src
                                                    ${PROJECT_SOURCE_DIR}/include)
# GCC fuses a*b+c by default; results must not depend on that, so FMA is written where it is meant.
target_compile_options(
  logitlab_flags
  INTERFACE -ffp-contract=off
            -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
            -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-qual -Wundef -Wvla -Wformat=2
            # Designated initialisers leave fields out on purpose; their defaults are the point.
            -Wno-missing-field-initializers
            # GCC 12 sees overlaps in std::string that cannot be (its bug 105651), at -O3 only.
            $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
            $<$<BOOL:${LOGITLAB_WERROR}>:-Werror>)

set(LOGITLAB_SANITIZE "" CACHE STRING "Sanitizers, as in -fsanitize=")
if(LOGITLAB_SANITIZE)
  add_compile_options(-fsanitize=${LOGITLAB_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${LOGITLAB_SANITIZE})
endif()
