/* Between adapter.c, adapter_options.c and adapter_files.c. */
#ifndef LK_CORE_ADAPTERS_ADAPTER_FILES_H
#define LK_CORE_ADAPTERS_ADAPTER_FILES_H

#include "core/adapters/adapter.h"

lk_status lk_adapter_new(lk_model *model, lk_adapter **out);
/* Chooses the method and makes the configuration. */
lk_status lk_adapter_configure(lk_adapter *adapter, const lk_adapter_options *options);
/* Of a target that no layer has. */
lk_status lk_adapter_no_match(lk_adapter *adapter, const char *name);
/* The method of the configuration that was read. */
lk_status lk_adapter_choose(lk_adapter *adapter, const char *folder);
/* Finds the layers and adds their tensors; finish computes what depends on the tensors' values. */
lk_status lk_adapter_declare(lk_adapter *adapter);
lk_status lk_adapter_finish(lk_adapter *adapter);

#endif
