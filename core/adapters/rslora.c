/* rsLoRA (Kalajdzievski, arXiv 2312.03732): LoRA with scale = alpha / sqrt(r), which lk_peft_scaling_of computes. */
#include "core/adapters/lora.h"

static bool accepts(const lk_peft_config *config) {
    return config->peft_type == LK_PEFT_LORA && config->use_rslora && !config->use_dora;
}

static void configure(lk_peft_config *config) {
    config->use_rslora = true;
}

const lk_adapter_method lk_adapter_method_rslora = {
    "rslora", accepts, configure, lk_lora_declare, lk_lora_apply, lk_lora_merge};
