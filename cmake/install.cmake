# What `cmake --install` puts in place, and how others find it: a pkg-config file and a CMake package.
include(CMakePackageConfigHelpers)

install(TARGETS lorikeet_shared EXPORT lorikeet-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS lorikeet_static EXPORT lorikeet-static-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN "*.def")

set(LK_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/lorikeet)
foreach(set lorikeet lorikeet-static)
  install(EXPORT ${set}-targets NAMESPACE lorikeet:: DESTINATION ${LK_CMAKE_DIR})
endforeach()
configure_package_config_file(cmake/lorikeet-config.cmake.in ${PROJECT_BINARY_DIR}/lorikeet-config.cmake
  INSTALL_DESTINATION ${LK_CMAKE_DIR})
# Before version 1.0 a new minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lorikeet-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lorikeet-config.cmake ${PROJECT_BINARY_DIR}/lorikeet-config-version.cmake
  DESTINATION ${LK_CMAKE_DIR})

# The flags of the libraries stand in Libs.private, not their names in Requires.private: who links the shared library
# needs none of their development packages.
set(LK_PC_LIBS_PRIVATE "")
foreach(prefix IN LISTS LK_LIBRARY_PREFIXES)
  list(APPEND LK_PC_LIBS_PRIVATE ${${prefix}_LDFLAGS})
endforeach()
foreach(library IN LISTS CMAKE_THREAD_LIBS_INIT CMAKE_DL_LIBS ITEMS m)
  if(NOT library MATCHES "^-")
    string(PREPEND library -l)
  endif()
  list(APPEND LK_PC_LIBS_PRIVATE ${library})
endforeach()
list(REMOVE_DUPLICATES LK_PC_LIBS_PRIVATE)
list(JOIN LK_PC_LIBS_PRIVATE " " LK_PC_LIBS_PRIVATE)
# Relative to where the file lies, so that an installed tree may be moved (and `cmake --install --prefix` holds).
file(RELATIVE_PATH LK_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/lorikeet.pc.in ${PROJECT_BINARY_DIR}/lorikeet.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/lorikeet.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
