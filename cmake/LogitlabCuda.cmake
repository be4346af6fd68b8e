# CUDA sources without CMake's CUDA language: that one wants the folders of an installed toolkit,
# and the toolkit may be a few unpacked wheels (`./lab build cuda` fetches them).
#
# LOGITLAB_NVCC: the compiler, version 13.0 or newer. LOGITLAB_CUDA_ARCHITECTURES: list of compute
# capabilities, each as nvcc spells it behind sm_ ("90a" for H200, "110" Jetson Thor, "120" RTX).
set(LOGITLAB_CUDA_ARCHITECTURES "90a" CACHE STRING "Compute capabilities to compile for")
find_program(LOGITLAB_NVCC nvcc PATHS /usr/local/cuda/bin DOC "CUDA compiler, 13.0 or newer")
if(NOT LOGITLAB_NVCC)
  message(FATAL_ERROR "LOGITLAB_CUDA is ON and there is no nvcc; `./lab build cuda` fetches one, "
                      "-DLOGITLAB_NVCC=/path/to/nvcc names one")
endif()
execute_process(COMMAND ${LOGITLAB_NVCC} --version OUTPUT_VARIABLE logitlab_nvcc_text
                RESULT_VARIABLE logitlab_nvcc_status)
if(NOT logitlab_nvcc_status EQUAL 0 OR NOT logitlab_nvcc_text MATCHES "release ([0-9]+\\.[0-9]+)")
  message(FATAL_ERROR "${LOGITLAB_NVCC} --version says nothing usable")
endif()
set(LOGITLAB_NVCC_VERSION ${CMAKE_MATCH_1})
if(LOGITLAB_NVCC_VERSION VERSION_LESS 13.0)
  message(FATAL_ERROR "${LOGITLAB_NVCC} is version ${LOGITLAB_NVCC_VERSION}, want 13.0 or newer")
endif()

get_filename_component(logitlab_nvcc_real ${LOGITLAB_NVCC} REALPATH)
get_filename_component(logitlab_cuda_root ${logitlab_nvcc_real} DIRECTORY)
get_filename_component(logitlab_cuda_root ${logitlab_cuda_root} DIRECTORY)
set(logitlab_cuda_target ${logitlab_cuda_root}/targets/${CMAKE_SYSTEM_PROCESSOR}-linux)
find_path(LOGITLAB_CUDA_INCLUDE cuda_runtime.h
          PATHS ${logitlab_cuda_root}/include ${logitlab_cuda_target}/include NO_DEFAULT_PATH
          REQUIRED)
find_library(LOGITLAB_CUDART libcudart_static.a
             PATHS ${logitlab_cuda_root}/lib64 ${logitlab_cuda_root}/lib ${logitlab_cuda_target}/lib
             NO_DEFAULT_PATH REQUIRED)
message(STATUS "CUDA ${LOGITLAB_NVCC_VERSION}: ${LOGITLAB_NVCC}, for ${LOGITLAB_CUDA_ARCHITECTURES}")

add_library(logitlab_cudart INTERFACE)
target_include_directories(logitlab_cudart SYSTEM INTERFACE ${LOGITLAB_CUDA_INCLUDE})
target_link_libraries(logitlab_cudart INTERFACE ${LOGITLAB_CUDART} Threads::Threads ${CMAKE_DL_LIBS}
                                                rt)

set(logitlab_nvcc_flags -std=c++20 -O3 -lineinfo -Xcompiler=-fPIC,-Wall,-Wextra)
foreach(architecture IN LISTS LOGITLAB_CUDA_ARCHITECTURES)
  list(APPEND logitlab_nvcc_flags
       -gencode=arch=compute_${architecture},code=sm_${architecture})
endforeach()
if(LOGITLAB_WERROR)
  list(APPEND logitlab_nvcc_flags -Werror=all-warnings)
endif()

# logitlab_cuda_objects(OUT_VARIABLE a.cu b.cu ...): compiles each; OUT_VARIABLE gets the objects.
function(logitlab_cuda_objects out_variable)
  set(objects "")
  foreach(source IN LISTS ARGN)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${source}.o)
    get_filename_component(folder ${object} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(
      OUTPUT ${object}
      COMMAND
        ${LOGITLAB_CCACHE} ${LOGITLAB_NVCC} ${logitlab_nvcc_flags} -I${PROJECT_SOURCE_DIR}/src
        -I${PROJECT_SOURCE_DIR}/include -I${LOGITLAB_CUDA_INCLUDE} -MD -MF ${object}.d -c
        ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source}
      DEPFILE ${object}.d
      COMMENT "CUDA ${source}"
      VERBATIM)
    set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
    list(APPEND objects ${object})
  endforeach()
  set(${out_variable} ${objects} PARENT_SCOPE)
endfunction()
