# Device code as images inside the library: each .cu becomes one fatbin, named after the file, in a table of fa_cuda_image
# (src/cuda/cuda_images.h). PTX of the least architecture comes along, so that GPUs newer than the toolkit run it too.
# FA_CUDA_IMAGES=OFF builds the host side alone (sanitizers and the second compiler look at that; device code is the same
# everywhere).
option(FA_CUDA_IMAGES "Compile the device code" ON)

set(FA_CUDA_ARCHITECTURES native CACHE STRING
  "GPUs to compile for beside PTX, which the driver compiles at first use: a list such as 75;80;90, or native")

set(FA_CUDA_REAL_ARCHITECTURES ${FA_CUDA_ARCHITECTURES})
if(FA_CUDA_ARCHITECTURES STREQUAL "native")
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE FA_CUDA_REAL_ARCHITECTURES ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    set(FA_CUDA_REAL_ARCHITECTURES "") # no GPU here
  endif()
  string(REGEX MATCHALL "[0-9.]+" FA_CUDA_REAL_ARCHITECTURES "${FA_CUDA_REAL_ARCHITECTURES}")
  list(TRANSFORM FA_CUDA_REAL_ARCHITECTURES REPLACE "[.]" "")
  list(REMOVE_DUPLICATES FA_CUDA_REAL_ARCHITECTURES)
endif()

# fa_cuda_images(TABLE sources_variable SOURCES file.cu... HEADERS file... INCLUDES folder... VOLTA name...)
# Puts into sources_variable the two generated sources that define `const fa_cuda_image TABLE[]` and `const int TABLE_count`.
# VOLTA: the files whose code a V100 runs. Toolkits from 13 on no longer know Volta, so scripts/build_sm70.sh makes them: one
# PTX for sm_70, assembled for every GPU here; what is tested on a newer GPU is then what a V100 runs. Of the others the
# caller says the architectures of their PTX: a list ptx_<file> or ptx_<folder>.
function(fa_cuda_images table sources_variable)
  cmake_parse_arguments(PARSE_ARGV 2 given "" "" "SOURCES;HEADERS;INCLUDES;VOLTA")
  if(NOT FA_CUDA_IMAGES)
    set(given_SOURCES "")
  endif()
  list(TRANSFORM given_INCLUDES PREPEND -I)
  set(declarations "")
  set(entries "")
  set(assembly "")
  set(images "")
  foreach(source IN LISTS given_SOURCES)
    cmake_path(GET source STEM name)
    cmake_path(GET source PARENT_PATH folder)
    cmake_path(GET folder FILENAME folder)
    set(image ${CMAKE_CURRENT_BINARY_DIR}/${name}.fatbin)
    list(APPEND images ${image})
    string(APPEND declarations "extern const unsigned char fa_image_${name}[];\n")
    string(APPEND entries "  {\"${name}\", fa_image_${name}},\n")
    string(APPEND assembly
      "  .globl fa_image_${name}\n  .hidden fa_image_${name}\n  .balign 64\nfa_image_${name}:\n  .incbin \"${image}\"\n")
    if(name IN_LIST given_VOLTA)
      set(also "")
      foreach(arch IN LISTS FA_CUDA_REAL_ARCHITECTURES)
        if(arch GREATER 70) # 70 itself is there always
          string(APPEND also " ${arch}")
        endif()
      endforeach()
      add_custom_command(OUTPUT ${image}
        COMMAND ${CMAKE_COMMAND} -E env NVCC=${CUDAToolkit_NVCC_EXECUTABLE} "FA_ALSO=${also}"
          ${PROJECT_SOURCE_DIR}/scripts/build_sm70.sh ${image} ${source} ${given_INCLUDES}
        DEPENDS ${source} ${given_HEADERS} ${PROJECT_SOURCE_DIR}/scripts/build_sm70.sh
        VERBATIM COMMENT "Building device code ${folder}/${name} for sm_70 and later")
      continue()
    endif()
    set(ptx ${ptx_${folder}})
    if(DEFINED ptx_${name})
      set(ptx ${ptx_${name}})
    endif()
    set(flags "")
    foreach(arch IN LISTS ptx)
      list(APPEND flags -gencode arch=compute_${arch},code=compute_${arch})
    endforeach()
    list(GET ptx 0 least)
    foreach(arch IN LISTS FA_CUDA_REAL_ARCHITECTURES)
      if(arch GREATER_EQUAL least)
        list(APPEND flags -gencode arch=compute_${arch},code=sm_${arch})
      endif()
    endforeach()
    add_custom_command(OUTPUT ${image}
      COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -fatbin ${flags} -O3 -std=c++17 --Werror all-warnings
        ${given_INCLUDES} -MD -MF ${image}.d -o ${image} ${source}
      DEPENDS ${source} DEPFILE ${image}.d VERBATIM COMMENT "Building device code ${folder}/${name}")
  endforeach()

  file(CONFIGURE OUTPUT ${table}.c @ONLY CONTENT
"#include \"cuda/cuda_images.h\"\n@declarations@extern const fa_cuda_image @table@[];\nextern const int @table@_count;
const fa_cuda_image @table@[] = {\n@entries@  {0, 0}};
const int @table@_count = (int)(sizeof @table@ / sizeof @table@[0]) - 1;\n")
  file(CONFIGURE OUTPUT ${table}.S @ONLY CONTENT
"  .section .rodata\n@assembly@  .section .note.GNU-stack,\"\",@progbits\n")
  set_source_files_properties(${CMAKE_CURRENT_BINARY_DIR}/${table}.S PROPERTIES OBJECT_DEPENDS "${images}")
  set(${sources_variable} ${CMAKE_CURRENT_BINARY_DIR}/${table}.c ${CMAKE_CURRENT_BINARY_DIR}/${table}.S PARENT_SCOPE)
endfunction()
