// Attention as cuDNN's graphs (NVIDIA's reference of cudnn_frontend, "Scaled Dot Product Attention"), behind the C
// interface of cudnn_plugin.h.
#include "backends/cuda/plugin/cudnn_plugin.h"

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace fe = cudnn_frontend;
using tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

void *fe::cudnn_dlhandle = nullptr; // the frontend calls cuDNN through it

// Ragged statistics, and workspaces that grow with the tokens and not with sequences times tokens, are newer than this.
static const int64_t oldest_version = 91000;

struct lk_cudnn {
    cudnnHandle_t handle = nullptr; // NULL: a described device
    std::shared_ptr<fe::DeviceProperties> described;
    int32_t capability = 0, units = 0;

    ~lk_cudnn() {
        if (handle != nullptr) {
            fe::detail::destroy_handle(handle);
        }
    }
};

struct lk_cudnn_plan {
    lk_cudnn *owner = nullptr;
    fe::graph::Graph graph;
};

static int failed(char *problem, int code, const std::string &what) {
    snprintf(problem, LK_CUDNN_PROBLEM, "%s", what.c_str());
    return code;
}

// Nothing may be thrown through C.
template <typename function> static int guarded(char *problem, function body) {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return failed(problem, LK_CUDNN_OUT_OF_MEMORY, "no memory");
    } catch (const std::exception &thrown) {
        return failed(problem, LK_CUDNN_FAILED, thrown.what());
    } catch (...) {
        return failed(problem, LK_CUDNN_FAILED, "cuDNN's frontend failed");
    }
}

uint32_t lk_cudnn_abi_version(void) {
    return LK_CUDNN_ABI_VERSION;
}

int lk_cudnn_load(int64_t *version, char *problem) {
    if (fe::cudnn_dlhandle == nullptr) {
        fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL); // never closed: it keeps threads
    }
    if (fe::cudnn_dlhandle == nullptr) {
        return failed(problem, LK_CUDNN_FAILED, "cuDNN 9 (libcudnn.so.9) is not installed");
    }
    return guarded(problem, [&] {
        *version = static_cast<int64_t>(fe::detail::get_backend_version());
        return *version >= oldest_version
                   ? int{LK_CUDNN_SUCCESS}
                   : failed(problem, LK_CUDNN_FAILED, "cuDNN is older than 9.10: " + std::to_string(*version));
    });
}

int lk_cudnn_open(const char *description, lk_cudnn **out, char *problem) {
    *out = nullptr;
    return guarded(problem, [&] {
        auto self = std::make_unique<lk_cudnn>();
        if (description != nullptr) {
            const std::string text = description;
            self->described = std::make_shared<fe::DeviceProperties>();
            auto status = self->described->deserialize(std::vector<uint8_t>(text.begin(), text.end()));
            if (status.is_bad()) {
                return failed(problem, LK_CUDNN_FAILED, status.get_message());
            }
            const auto properties = nlohmann::json::parse(text);
            self->capability = properties.at("deviceVer").get<int32_t>() / 10;
            self->units = properties.at("multiProcessorCount").get<int32_t>();
        } else if (fe::detail::create_handle(&self->handle) != CUDNN_STATUS_SUCCESS) {
            self->handle = nullptr;
            return failed(problem, LK_CUDNN_FAILED, "cudnnCreate failed");
        }
        *out = self.release();
        return int{LK_CUDNN_SUCCESS};
    });
}

void lk_cudnn_close(lk_cudnn *self) {
    delete self;
}

// Makes the tensors of one attention's graph; their numbers are those of lk_cudnn_tensor, from 1 on.
class builder {
  public:
    builder(fe::graph::Graph &to, const lk_cudnn_attention &of) : graph(to), a(of) {
        lengths = integers(LK_CUDNN_LENGTHS, 0);
        q_starts = integers(LK_CUDNN_Q_STARTS, 1);
        k_starts = integers(LK_CUDNN_K_STARTS, 1);
        lse_starts = integers(LK_CUDNN_LSE_STARTS, 1);
    }

    void forward() {
        auto options = fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(a.wants_lse != 0);
        auto [o, lse] = graph.sdpa(input(LK_CUDNN_Q), input(LK_CUDNN_K), input(LK_CUDNN_V), common(options));
        rows(o, LK_CUDNN_O)->set_output(true);
        if (a.wants_lse != 0) {
            statistics(lse)->set_output(true);
        }
    }

    void backward() {
        auto options = fe::graph::SDPA_backward_attributes().set_name("attention_backward");
        options.set_max_total_seq_len_q(a.tokens).set_max_total_seq_len_kv(a.tokens);
        tensor q = input(LK_CUDNN_Q), k = input(LK_CUDNN_K), v = input(LK_CUDNN_V), o = input(LK_CUDNN_O);
        tensor lse = statistics(graph.tensor(fe::graph::Tensor_attributes()));
        auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, o, input(LK_CUDNN_DO), lse, common(options));
        rows(dq, LK_CUDNN_DQ)->set_output(true);
        rows(dk, LK_CUDNN_DK)->set_output(true);
        rows(dv, LK_CUDNN_DV)->set_output(true);
    }

  private:
    fe::graph::Graph &graph;
    const lk_cudnn_attention &a;
    tensor lengths, q_starts, k_starts, lse_starts;

    template <typename attributes> attributes &common(attributes &options) {
        options.set_attn_scale(a.scale).set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
        if (a.causal != 0) {
            options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
        }
        return options;
    }

    tensor integers(lk_cudnn_tensor which, int64_t more) {
        return graph.tensor(fe::graph::Tensor_attributes()
                                .set_uid(which + 1)
                                .set_dim({a.sequences + more, 1, 1, 1})
                                .set_stride({1, 1, 1, 1})
                                .set_data_type(fe::DataType_t::INT32));
    }

    // [tokens, heads, head_dim] as [sequences, heads, tokens, head_dim], where a sequence begins at its offset.
    tensor rows(tensor of, lk_cudnn_tensor which) {
        const bool is_key = which == LK_CUDNN_K || which == LK_CUDNN_V || which == LK_CUDNN_DK || which == LK_CUDNN_DV;
        const int64_t heads = is_key ? a.num_key_value_heads : a.num_attention_heads, pitch = heads * a.head_dim;
        of->set_uid(which + 1)
            .set_dim({a.sequences, heads, a.tokens, a.head_dim})
            .set_stride({a.tokens * pitch, a.head_dim, pitch, 1})
            .set_ragged_offset(is_key ? k_starts : q_starts)
            .set_data_type(fe::DataType_t::BFLOAT16);
        return of;
    }

    tensor input(lk_cudnn_tensor which) {
        return rows(graph.tensor(fe::graph::Tensor_attributes()), which);
    }

    tensor statistics(tensor of) {
        const int64_t heads = a.num_attention_heads;
        of->set_uid(LK_CUDNN_LSE + 1)
            .set_dim({a.sequences, heads, a.tokens, 1})
            .set_stride({a.tokens * heads, 1, heads, 1})
            .set_ragged_offset(lse_starts)
            .set_data_type(fe::DataType_t::FLOAT);
        return of;
    }
};

static fe::error_t build(lk_cudnn_plan &plan) {
    fe::graph::Graph &graph = plan.graph;
    auto status = graph.validate();
    if (status.is_good()) {
        status = plan.owner->handle != nullptr ? graph.build_operation_graph(plan.owner->handle)
                                               : graph.build_operation_graph();
    }
    if (status.is_good()) {
        status = graph.create_execution_plans({fe::HeurMode_t::A});
    }
    if (status.is_good()) {
        status = graph.check_support();
    }
    return status.is_good() ? graph.build_plans() : status;
}

int lk_cudnn_plan_create(lk_cudnn *self, const lk_cudnn_attention *attention, lk_cudnn_plan **out,
                         size_t *workspace_bytes, char *problem) {
    *out = nullptr;
    return guarded(problem, [&] {
        auto plan = std::make_unique<lk_cudnn_plan>();
        plan->owner = self;
        plan->graph.set_io_data_type(fe::DataType_t::BFLOAT16)
            .set_intermediate_data_type(fe::DataType_t::FLOAT)
            .set_compute_data_type(fe::DataType_t::FLOAT);
        if (self->described != nullptr) {
            plan->graph.set_device_properties(self->described);
            plan->graph.set_sm_version(self->capability).set_sm_count(self->units);
        }
        builder make(plan->graph, *attention);
        attention->backward != 0 ? make.backward() : make.forward();
        auto status = build(*plan);
        if (status.is_bad()) {
            const bool none = status.get_code() == fe::error_code_t::GRAPH_NOT_SUPPORTED;
            return failed(problem, none ? LK_CUDNN_UNSUPPORTED : LK_CUDNN_FAILED, status.get_message());
        }
        *workspace_bytes = static_cast<size_t>(plan->graph.get_workspace_size());
        *out = plan.release();
        return int{LK_CUDNN_SUCCESS};
    });
}

void lk_cudnn_plan_destroy(lk_cudnn_plan *plan) {
    delete plan;
}

int lk_cudnn_plan_run(lk_cudnn_plan *plan, void *const tensors[LK_CUDNN_TENSORS], void *workspace, void *stream,
                      char *problem) {
    return guarded(problem, [&] {
        std::unordered_map<int64_t, void *> pack;
        for (int i = 0; i < LK_CUDNN_TENSORS; i++) {
            if (tensors[i] != nullptr) {
                pack[i + 1] = tensors[i];
            }
        }
        cudnnHandle_t handle = plan->owner->handle;
        if (fe::detail::set_stream(handle, static_cast<cudaStream_t>(stream)) != CUDNN_STATUS_SUCCESS) {
            return failed(problem, LK_CUDNN_FAILED, "cudnnSetStream failed");
        }
        auto status = plan->graph.execute(handle, pack, workspace);
        return status.is_good() ? int{LK_CUDNN_SUCCESS} : failed(problem, LK_CUDNN_FAILED, status.get_message());
    });
}
