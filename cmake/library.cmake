# The library, once as objects, then as a static and a shared library.
# Folders are globbed; what a .def table names must exist, which is checked here so that a missing file is a
# configure error and not a link error.

file(GLOB LK_SOURCES CONFIGURE_DEPENDS
  core/base/*.c core/graph/*.c core/graph/passes/*.c core/ops/*.c core/adapters/*.c core/models/*.c core/formats/*.c
  core/text/*.c core/train/*.c dispatch/*.c bench/*.c)

# lk_table_names(<variable> <file> <macro>): the second argument of every row of a .def table.
function(lk_table_names variable file macro)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(STRINGS ${file} rows REGEX "^${macro}\\(")
  set(names)
  foreach(row IN LISTS rows)
    string(REGEX REPLACE "^${macro}\\([A-Z0-9_]+, *([a-z0-9_]+).*" "\\1" name "${row}")
    list(APPEND names ${name})
  endforeach()
  set(${variable} ${names} PARENT_SCOPE)
endfunction()

function(lk_require_files table folder)
  foreach(name IN LISTS ARGN)
    if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${folder}/${name}.c)
      message(FATAL_ERROR "${table} names ${name}, but ${folder}/${name}.c does not exist")
    endif()
  endforeach()
endfunction()

if(EXISTS ${PROJECT_SOURCE_DIR}/include/lorikeet/ops.def)
  lk_table_names(LK_OPS include/lorikeet/ops.def LK_OP)
  lk_require_files(ops.def core/ops ${LK_OPS})
endif()
if(EXISTS ${PROJECT_SOURCE_DIR}/core/models/models.def)
  lk_table_names(LK_MODELS core/models/models.def LK_MODEL)
  lk_require_files(models.def core/models ${LK_MODELS})
endif()
if(EXISTS ${PROJECT_SOURCE_DIR}/core/adapters/adapters.def)
  lk_table_names(LK_ADAPTERS core/adapters/adapters.def LK_ADAPTER)
  lk_require_files(adapters.def core/adapters ${LK_ADAPTERS})
endif()

list(TRANSFORM LK_LIBRARY_PREFIXES PREPEND PkgConfig:: OUTPUT_VARIABLE LK_LIBRARY_TARGETS)
add_library(lorikeet_objects OBJECT ${LK_SOURCES})
target_include_directories(lorikeet_objects PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
target_compile_definitions(lorikeet_objects PRIVATE LK_BUILDING)
target_link_libraries(lorikeet_objects PRIVATE lorikeet_warnings)
target_link_libraries(lorikeet_objects PUBLIC ${LK_LIBRARY_TARGETS} Threads::Threads m)

# compiles the kernels for Vulkan (cmake/shaders.cmake)
find_program(LK_GLSLANG glslangValidator)

# Backends: one folder each, with a CMakeLists.txt that adds its sources to lorikeet_objects. Object libraries of its own
# (files compiled with special flags) it appends to the property LK_OBJECT_LIBRARIES.
file(GLOB LK_BACKEND_LISTS CONFIGURE_DEPENDS backends/*/CMakeLists.txt)
foreach(list IN LISTS LK_BACKEND_LISTS)
  get_filename_component(folder ${list} DIRECTORY)
  add_subdirectory(${folder})
endforeach()

set(LK_OBJECTS $<TARGET_OBJECTS:lorikeet_objects>)
get_property(LK_OBJECT_LIBRARIES GLOBAL PROPERTY LK_OBJECT_LIBRARIES)
foreach(library IN LISTS LK_OBJECT_LIBRARIES)
  list(APPEND LK_OBJECTS $<TARGET_OBJECTS:${library}>)
endforeach()
get_target_property(LK_LIBRARY_LINKS lorikeet_objects LINK_LIBRARIES)
list(REMOVE_ITEM LK_LIBRARY_LINKS lorikeet_warnings)

# Only what LK_API marks leaves the shared library (hidden visibility). The static one defines LK_STATIC for its users.
foreach(kind STATIC SHARED)
  string(TOLOWER ${kind} suffix)
  add_library(lorikeet_${suffix} ${kind} ${LK_OBJECTS})
  target_include_directories(lorikeet_${suffix} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(lorikeet_${suffix} PRIVATE ${LK_LIBRARY_LINKS})
  set_target_properties(lorikeet_${suffix} PROPERTIES OUTPUT_NAME lorikeet LINKER_LANGUAGE C
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
endforeach()
target_compile_definitions(lorikeet_static INTERFACE LK_STATIC)
set_target_properties(lorikeet_shared PROPERTIES EXPORT_NAME lorikeet)
set_target_properties(lorikeet_static PROPERTIES EXPORT_NAME lorikeet_static)
add_library(lorikeet::lorikeet ALIAS lorikeet_shared)
add_library(lorikeet::lorikeet_static ALIAS lorikeet_static)

# What the tests and benchmarks link: the static library together with its internal headers.
add_library(lorikeet_internal INTERFACE)
target_include_directories(lorikeet_internal INTERFACE ${PROJECT_SOURCE_DIR})
target_link_libraries(lorikeet_internal INTERFACE lorikeet_static ${LK_LIBRARY_LINKS})
target_compile_definitions(lorikeet_internal INTERFACE $<$<BOOL:${LK_HAS_VULKAN}>:LK_HAS_VULKAN>)
