{{/*
What Ray's pods have in common. Whatever is rendered here is in rayClusterConfig: a change of it starts a second Ray
cluster, so nothing may come from the chart's version, a checksum or the release's revision.
Call with (dict "root" $ "name" NAME "model" MODEL "facts" FACTS).
*/}}
{{- define "headrace.rayEnv" -}}
- name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
  value: {{ int64 .facts.drain | quote }}
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
# Ray's 15 would let everything else on the node go before the engine.
- name: RAY_worker_niceness
  value: "0"
- name: VLLM_NO_USAGE_STATS
  value: "1"
- name: HF_HUB_OFFLINE
  value: "1"
- name: HOME
  value: /home/headrace
{{ include "headrace.linkTokenEnv" .root }}
{{ include "headrace.engineRedisUrlEnv" .root }}
{{- with .model.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "headrace.rayVolumes" -}}
- name: home
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- with include "headrace.storeTlsVolume" .root }}
{{ . }}
{{- end }}
{{- with .model.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "headrace.rayMounts" -}}
- name: home
  mountPath: /home/headrace
- name: tmp
  mountPath: /tmp
{{- with include "headrace.storeTlsMount" .root }}
{{ . }}
{{- end }}
{{- with .model.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Ports of Ray, by the names that KubeRay knows: `serve` and `metrics` have to be called so. */}}
{{- define "headrace.rayPorts" -}}
- name: serve
  containerPort: 8000
- name: agent
  containerPort: 52365
- name: metrics
  containerPort: 8080
{{- end -}}

{{- define "headrace.rayPodSpec" -}}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ int64 .facts.grace }}
{{- with .model.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  {{- toYaml .model.podSecurityContext | nindent 2 }}
{{- with include "headrace.imagePullSecrets" .root }}
{{ . }}
{{- end }}
{{- end -}}

{{- define "headrace.rayMetadata" -}}
labels:
  {{- include "headrace.selector" (dict "root" .root "component" "engine" "model" .name) | nindent 2 }}
{{- with .model.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The head: Ray's state, the dashboard and Serve's controller, on a node without GPUs, and no replica. It ends after its
workers, whose drain it directs. With the autoscaler its account is made by KubeRay.
*/}}
{{- define "headrace.rayHead" -}}
{{- $later := dict "drain" (add (int64 .facts.drain) 10) "grace" (add (int64 .facts.grace) 10) -}}
{{- with merge (dict "facts" (merge $later .facts)) . -}}
rayStartParams:
  num-cpus: "0"
  num-gpus: "0"
  dashboard-host: 0.0.0.0
  # Bytes: tokens do not travel through Ray's object store.
  object-store-memory: "134217728"
template:
  metadata:
    {{- include "headrace.rayMetadata" . | nindent 4 }}
  spec:
    {{- include "headrace.rayPodSpec" . | nindent 4 }}
    {{- if not .facts.scales }}
    serviceAccountName: {{ include "headrace.engineAccount" . | quote }}
    automountServiceAccountToken: false
    {{- end }}
    {{- with .model.headNodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .model.headTolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: ray-head
        {{- include "headrace.containerImage" (dict "root" .root "image" "engine") | nindent 8 }}
        ports:
          - name: gcs
            containerPort: 6379
          - name: dashboard
            containerPort: 8265
          - name: client
            containerPort: 10001
          {{- include "headrace.rayPorts" . | nindent 10 }}
        env:
          {{- include "headrace.rayEnv" . | nindent 10 }}
        resources:
          {{- toYaml .model.resources.head | nindent 10 }}
        securityContext:
          {{- toYaml .model.securityContext | nindent 10 }}
        volumeMounts:
          - name: shm
            mountPath: /dev/shm
          {{- include "headrace.rayMounts" . | nindent 10 }}
    volumes:
      - name: shm
        emptyDir:
          medium: Memory
          sizeLimit: 256Mi
      {{- include "headrace.rayVolumes" . | nindent 6 }}
{{- end -}}
{{- end -}}

{{/*
Workers: one pod for each node of a replica. A worker is ready when its replica listens, which it does after its first
token; of a replica's further nodes, which have no replica and no proxy of Serve, when Ray's agent is well. KubeRay's own
probe would want a proxy on each.
*/}}
{{- define "headrace.rayWorker" -}}
groupName: replicas
numOfHosts: 1
replicas: {{ int64 .facts.leastWorkers }}
minReplicas: {{ int64 .facts.leastWorkers }}
maxReplicas: {{ int64 .facts.mostWorkers }}
rayStartParams:
  num-cpus: {{ int64 .facts.cpus | quote }}
  num-gpus: {{ int64 .facts.gpus | quote }}
  object-store-memory: "134217728"
template:
  metadata:
    {{- include "headrace.rayMetadata" . | nindent 4 }}
  spec:
    {{- include "headrace.rayPodSpec" . | nindent 4 }}
    serviceAccountName: {{ include "headrace.engineAccount" . | quote }}
    automountServiceAccountToken: false
    {{- with include "headrace.rayPlacement" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with include "headrace.checkpointInit" . }}
    initContainers:
      {{- . | nindent 6 }}
    {{- end }}
    containers:
      - name: ray-worker
        {{- include "headrace.containerImage" (dict "root" .root "image" "engine") | nindent 8 }}
        ports:
          - name: link
            containerPort: 50061
          {{- include "headrace.rayPorts" . | nindent 10 }}
        env:
          {{- include "headrace.rayEnv" . | nindent 10 }}
        readinessProbe:
          {{- if eq (int64 .model.nodes) 1 }}
          tcpSocket:
            port: link
          {{- else }}
          httpGet:
            path: /api/healthz
            port: agent
          {{- end }}
          periodSeconds: 5
          timeoutSeconds: 5
          failureThreshold: 2
        resources:
          {{- include "headrace.workerResources" . | nindent 10 }}
        securityContext:
          {{- toYaml .model.securityContext | nindent 10 }}
        volumeMounts:
          - name: shm
            mountPath: /dev/shm
          {{- with include "headrace.checkpointMount" . }}
          {{- . | nindent 10 }}
          {{- end }}
          {{- include "headrace.rayMounts" . | nindent 10 }}
    volumes:
      - name: shm
        emptyDir:
          medium: Memory
          sizeLimit: {{ .facts.shm }}
      {{- with include "headrace.checkpointVolume" . }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- include "headrace.rayVolumes" . | nindent 6 }}
{{- end -}}

{{/* Resources of a worker with its GPUs, and the disk that a fetched checkpoint takes. */}}
{{- define "headrace.workerResources" -}}
{{- $resources := deepCopy .model.resources.worker -}}
{{- $requests := $resources.requests | default dict -}}
{{- $limits := $resources.limits | default dict -}}
{{- with int64 .facts.gpus -}}
{{- $_ := set $requests $.model.gpu.resource . -}}
{{- $_ := set $limits $.model.gpu.resource . -}}
{{- end -}}
{{- with include "headrace.checkpointOnDisk" .model -}}
{{- $_ := set $requests "ephemeral-storage" . -}}
{{- end -}}
{{- toYaml (dict "requests" $requests "limits" $limits) -}}
{{- end -}}

{{/* Nodes with the GPUs of the kind, by the labels of GPU feature discovery; the usual taint of GPU nodes is tolerated. */}}
{{- define "headrace.rayPlacement" -}}
{{- $model := .model -}}
{{- with $model.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $model.tolerations }}
tolerations:
  {{- toYaml $model.tolerations | nindent 2 }}
{{- else if .facts.gpus }}
tolerations:
  - key: {{ $model.gpu.resource | quote }}
    operator: Exists
    effect: NoSchedule
{{- end }}
{{- if $model.affinity }}
affinity:
  {{- toYaml $model.affinity | nindent 2 }}
{{- else if $model.gpu.products }}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: nvidia.com/gpu.product
              operator: In
              values:
                {{- toYaml $model.gpu.products | nindent 16 }}
{{- end }}
{{- end -}}

{{- define "headrace.engineAccount" -}}
{{- .model.serviceAccountName | default (include "headrace.componentName" (dict "root" .root "component" "engine")) -}}
{{- end -}}
