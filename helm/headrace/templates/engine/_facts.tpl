{{/* The Ray of the engine's image: KubeRay chooses probes by it. deploy/requirements/gpu.txt has the same. */}}
{{- define "headrace.rayVersion" -}}
2.60.0
{{- end -}}

{{/* Seconds that Serve allows a replica beyond its grace: SHUTDOWN_MARGIN_S of cluster/serving/app.py. */}}
{{- define "headrace.serveMargin" -}}
15
{{- end -}}

{{/*
What follows from a model's entry, as YAML. Call with (dict "root" $ "model" MODEL); numbers come out as floats.
Ray begins to stop the replica at once when its deadline is no later than the replica's own, so a pod's end takes the
replica's grace, Serve's margin, and a few seconds each for Ray and the kubelet.
*/}}
{{- define "headrace.engineFacts" -}}
{{- $model := .model -}}
{{- $scaling := $model.autoscaling -}}
{{- $nodes := int64 $model.nodes -}}
{{- $scales := and $scaling.enabled (gt (int64 $scaling.maxReplicas) (int64 $scaling.minReplicas)) -}}
{{- $least := ternary $scaling.minReplicas $model.replicas $scaling.enabled | int64 -}}
{{- $most := ternary $scaling.maxReplicas $model.replicas $scaling.enabled | int64 -}}
{{- $gpus := int64 $model.gpu.perNode -}}
{{- if not $gpus }}{{ $gpus = div (int64 $model.gpu.perReplica) $nodes }}{{ end -}}
{{- $shards := div (mul (int64 $model.tensorParallelSize) (int64 $model.pipelineParallelSize)) $nodes -}}
{{- $drain := add (ceil $model.drainGraceSeconds | int64) (include "headrace.serveMargin" . | int64) 5 -}}
scales: {{ $scales }}
least: {{ $least }}
most: {{ $most }}
leastWorkers: {{ mul $least $nodes }}
mostWorkers: {{ mul $most $nodes }}
gpus: {{ $gpus }}
cpus: {{ include "headrace.wholeCpus" $model.resources.worker.requests.cpu }}
shm: {{ $model.shm | default (printf "%dGi" (add 2 (ternary (mul 2 $shards) 0 (gt $shards 1)))) }}
drain: {{ $drain }}
grace: {{ add $drain 15 }}
deletionDelay: {{ $model.upgrade.deletionDelaySeconds | default (add (include "headrace.longestTurn" .root | int64) 60) | int64 }}
{{- end -}}

{{/* Whole CPUs of a quantity, at least one: what Ray is told of a worker. */}}
{{- define "headrace.wholeCpus" -}}
{{- $text := toString . -}}
{{- $cpus := float64 (trimSuffix "m" $text) -}}
{{- if hasSuffix "m" $text }}{{ $cpus = divf $cpus 1000 }}{{ end -}}
{{- max 1 (floor $cpus | int64) -}}
{{- end -}}

{{- define "headrace.validate.engines" -}}
{{- $root := . -}}
{{- range $name, $_ := .Values.models }}
{{- $model := include "headrace.model" (dict "root" $root "name" $name) | fromYaml }}
{{- $facts := include "headrace.engineFacts" (dict "root" $root "model" $model) | fromYaml }}
{{- $at := printf "models.%s" $name }}
{{- $shards := mul (int64 $model.tensorParallelSize) (int64 $model.pipelineParallelSize) }}
{{- $gpus := int64 $model.gpu.perReplica }}
{{- $longest := include "headrace.longestTurn" $root | int64 }}
{{- if lt (int64 $facts.deletionDelay) $longest }}
{{ $at }}.upgrade.deletionDelaySeconds is {{ int64 $facts.deletionDelay }}, but a turn may take {{ $longest }} s: raise it, set it to 0 for what suffices, or lower gateway.settings.max_turn_seconds.
{{- end }}
{{- if mod $shards (int64 $model.nodes) }}
{{ $at }}.nodes is {{ int64 $model.nodes }}, which does not divide its {{ $shards }} shards (tensorParallelSize times pipelineParallelSize).
{{- end }}
{{- if and $gpus (ne $gpus $shards) (eq $model.engine "vllm") }}
{{ $at }}.gpu.perReplica is {{ $gpus }}, but tensorParallelSize times pipelineParallelSize is {{ $shards }}: each shard takes one GPU.
{{- end }}
{{- if and $gpus (ne $gpus (mul (int64 $facts.gpus) (int64 $model.nodes))) }}
{{ $at }}.gpu.perNode is {{ int64 $facts.gpus }} on {{ int64 $model.nodes }} nodes, but gpu.perReplica is {{ $gpus }}: set perNode to 0, or to the quotient.
{{- end }}
{{- if and $model.gpu.kind (gt (int64 $facts.gpus) 8) }}
{{ $at }}.gpu.perNode is {{ int64 $facts.gpus }}, and no machine has more than 8 GPUs of a kind: spread the replica over nodes.
{{- end }}
{{- if and $gpus (gt (int64 $model.nodes) 1) (mod (int64 $facts.gpus) (int64 $model.tensorParallelSize)) }}
{{ $at }}.tensorParallelSize is {{ int64 $model.tensorParallelSize }}, which does not divide the {{ int64 $facts.gpus }} GPUs of a node: a layer's shards stay on one node, and layers go over nodes by pipelineParallelSize.
{{- end }}
{{- if and $model.pdb.enabled (gt (int64 $model.pdb.minAvailable) 0) (ge (int64 $model.pdb.minAvailable) (int64 $facts.leastWorkers)) }}
{{ $at }}.pdb.minAvailable is {{ int64 $model.pdb.minAvailable }} and the model has as few as {{ int64 $facts.leastWorkers }} workers, so that no node of theirs could be drained: lower it, or set it to -1.
{{- end }}
{{- if and $model.gpu.kind (not $gpus) }}
{{ $at }}.gpu.kind is {{ $model.gpu.kind | quote }} and gpu.perReplica is 0: say how many GPUs a replica takes, or leave kind empty.
{{- end }}
{{- if and (eq $model.engine "vllm") (gt (int64 $model.maxNumSeqs) (int64 $model.capacity)) }}
{{ $at }}.capacity is {{ int64 $model.capacity }}, below maxNumSeqs, which is {{ int64 $model.maxNumSeqs }}: a batch would never fill.
{{- end }}
{{- end }}
{{- end -}}
