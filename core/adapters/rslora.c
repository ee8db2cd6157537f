/* rsLoRA (Kalajdzievski, arXiv 2312.03732): LoRA with scale = alpha / sqrt(r), which lk_peft_scaling_of computes. */
#include "core/adapters/lora.h"

static bool accepts(const lk_peft_config *config) {
    return config->use_rslora && !config->use_dora && lk_lora_method_of(config) == NULL;
}

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    (void)options;
    adapter->config.use_rslora = true;
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_rslora = {.name = "rslora",
                                                    .type = LK_PEFT_LORA,
                                                    .accepts = accepts,
                                                    .configure = configure,
                                                    .declare = lk_lora_declare,
                                                    .apply = lk_lora_apply,
                                                    .embed = lk_lora_embed,
                                                    .merge = lk_lora_merge};
