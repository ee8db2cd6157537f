/* Between adapter.c and adapter_files.c. */
#ifndef LK_CORE_ADAPTERS_ADAPTER_FILES_H
#define LK_CORE_ADAPTERS_ADAPTER_FILES_H

#include "core/adapters/adapter.h"

lk_status lk_adapter_new(lk_model *model, lk_adapter **out);
/* The method of the configuration that was read. */
lk_status lk_adapter_choose(lk_adapter *adapter, const char *folder);
/* Finds the layers and adds their tensors; finish computes what depends on the tensors' values. */
lk_status lk_adapter_declare(lk_adapter *adapter);
lk_status lk_adapter_finish(lk_adapter *adapter);

#endif
