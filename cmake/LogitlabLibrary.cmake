# logitlab_library(NAME state DEPS base tensor SRCS a.cc ... TESTS a_test.cc ... LIBS fmt::fmt ...)
# One static library per folder of src/. DEPS are other folders (checked by tools/check_layers.py),
# LIBS are third-party targets. TESTS make one GoogleTest binary `<name>_test`, label `unit`.
function(logitlab_library)
  cmake_parse_arguments(ARG "" "NAME" "DEPS;SRCS;TESTS;LIBS;TEST_LIBS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "logitlab_library(${ARG_NAME}): unknown ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  set(target logitlab_${ARG_NAME})
  add_library(${target} STATIC ${ARG_SRCS})
  target_link_libraries(${target} PUBLIC ${ARG_LIBS} PRIVATE logitlab_flags)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/src
                                              ${PROJECT_SOURCE_DIR}/include)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${target} PUBLIC logitlab_${dep})
  endforeach()
  if(ARG_TESTS)
    logitlab_test(NAME ${ARG_NAME}_test LABEL unit DEPS ${ARG_NAME} SRCS ${ARG_TESTS}
                  LIBS ${ARG_TEST_LIBS})
  endif()
endfunction()

# logitlab_test(NAME x LABEL unit|conformance|golden|cli DEPS folders SRCS files LIBS targets)
function(logitlab_test)
  cmake_parse_arguments(ARG "" "NAME;LABEL" "DEPS;SRCS;LIBS;ARGS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE logitlab_flags GTest::gtest GTest::gtest_main
                                            ${ARG_LIBS})
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${ARG_NAME} PRIVATE logitlab_${dep})
  endforeach()
  target_compile_definitions(${ARG_NAME}
                             PRIVATE LOGITLAB_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} ${ARG_ARGS})
  # Memory that is not there is an error that the code handles and the tests ask for: the
  # sanitizer's allocator has to answer null, as the library's does, instead of ending the program.
  set_tests_properties(${ARG_NAME} PROPERTIES ENVIRONMENT ASAN_OPTIONS=allocator_may_return_null=1)
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT 600)
endfunction()
