{{/*
serveConfigV2 of a model: one application. A change here is applied in place, to the running cluster, so nothing of it
may be in rayClusterConfig too. The route is for KubeRay's sake: without one Serve's proxies never report ready, and
neither does the RayService. No request comes over it.
*/}}
{{- define "headrace.serveConfig" -}}
{{- $model := .model -}}
{{- $slug := regexReplaceAll "[^A-Za-z0-9._-]" .name "-" -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
applications:
  - name: {{ $slug | quote }}
    import_path: cluster.serving.app:application
    route_prefix: /
    args:
      settings:
        {{- include "headrace.replicaSettings" . | fromYaml | toYaml | nindent 8 }}
    deployments:
      - name: {{ $slug | quote }}
        {{- if $model.autoscaling.enabled }}
        # "auto" lets Serve take the policy that it built; without it the controller would look for it anew.
        num_replicas: auto
        autoscaling_config:
          {{- include "headrace.autoscalingConfig" . | nindent 10 }}
        {{- else }}
        num_replicas: {{ int64 $model.replicas }}
        {{- end }}
{{- end -}}

{{/* Settings of a replica, without the secrets, which are variables of its pod. */}}
{{- define "headrace.replicaSettings" -}}
{{- $model := .model -}}
model: {{ .name | quote }}
revision: {{ $model.checkpoint.revision | quote }}
engine: {{ $model.engine }}
capacity: {{ int64 $model.capacity }}
port: 50061
drain_grace_s: {{ $model.drainGraceSeconds }}
{{- if .facts.gpus }}
num_cpus: 1
num_gpus: {{ int64 .facts.gpus }}
{{- else }}
# All that its worker has: one replica in a pod.
num_cpus: {{ int64 .facts.cpus }}
{{- end }}
{{- with .root.Values.tracing.endpoint }}
otlp_endpoint: {{ . | quote }}
{{- end }}
{{- if eq $model.engine "sim" }}
{{- with $model.sim }}
sim:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- else }}
vllm:
  checkpoint: {{ include "headrace.checkpoint" .name }}
  {{- range list "tensorParallelSize" "pipelineParallelSize" "nodes" "maxModelLen" "maxNumSeqs" "kvCacheGib" }}
  {{ snakecase . }}: {{ index $model . | int64 }}
  {{- end }}
  {{- with int64 $model.maxNumBatchedTokens }}
  max_num_batched_tokens: {{ . }}
  {{- end }}
  gpu_memory_utilization: {{ $model.gpuMemoryUtilization }}
  kv_cache_dtype: {{ $model.kvCacheDtype }}
  enable_expert_parallel: {{ $model.enableExpertParallel }}
{{- end }}
{{- end -}}

{{/*
As cluster/serving/app.py makes it; a test compares. Serve replaces every replica where the policy changes, and none where
the rest does.
*/}}
{{- define "headrace.autoscalingConfig" -}}
{{- $scaling := .model.autoscaling -}}
min_replicas: {{ int64 $scaling.minReplicas }}
max_replicas: {{ int64 $scaling.maxReplicas }}
target_ongoing_requests: {{ $scaling.targetTurns | default (minf 64 (mulf 0.75 .model.capacity)) }}
upscale_delay_s: 0
downscale_delay_s: 0
downscale_to_zero_delay_s: 0
upscaling_factor: 1
downscaling_factor: 1
metrics_interval_s: 1
look_back_period_s: 3
policy:
  policy_function: cluster.serving.policy:LoadPolicy
  policy_kwargs:
    model: {{ .name | quote }}
    settings:
      ttft_budget_seconds: {{ $scaling.ttftBudgetSeconds }}
      {{- with $scaling.prefillTokensPerSecond }}
      prefill_tokens_per_second: {{ . }}
      {{- end }}
      kv_target: {{ $scaling.kvTarget }}
      upscale_delay_seconds: {{ $scaling.upscaleDelaySeconds }}
      downscale_delay_seconds: {{ $scaling.downscaleDelaySeconds }}
      downscale_to_zero_delay_seconds: {{ $scaling.downscaleToZeroDelaySeconds }}
{{- end -}}
