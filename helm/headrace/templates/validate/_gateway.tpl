{{- define "headrace.validate.names" -}}
{{- if gt (len .Values.fullnameOverride) 40 }}
fullnameOverride has {{ len .Values.fullnameOverride }} characters: give it at most 40, so that a model's name fits behind it.
{{- end }}
{{- if gt (len .Values.nameOverride) 40 }}
nameOverride has {{ len .Values.nameOverride }} characters: give it at most 40.
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "headrace.fullname" .)) }}
The name {{ include "headrace.fullname" . | quote }} does not begin with a letter, or has more than a-z, 0-9 and "-": KubeRay takes no other; set fullnameOverride.
{{- end }}
{{- end -}}

{{- define "headrace.validate.labels" -}}
{{- $monitoring := .Values.monitoring }}
{{- $given := dict "commonLabels" .Values.commonLabels "gateway.podLabels" .Values.gateway.podLabels }}
{{- $given = merge $given (dict "monitoring.labels" $monitoring.labels "monitoring.dashboards.labels" $monitoring.dashboards.labels) }}
{{- range $at, $labels := $given }}
{{- range $key, $_ := $labels }}
{{- if regexMatch "^(app\\.kubernetes\\.io|helm\\.sh|headrace\\.dev)/" $key }}
{{ $at }} has {{ $key }}, which is the chart's own, for its selectors and for helm: give the label another name.
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.validate.tracing" -}}
{{- with .Values.tracing.endpoint }}
{{- if not (regexMatch "^https?://[A-Za-z0-9][A-Za-z0-9.-]*:[1-9][0-9]{0,4}/?$" .) }}
tracing.endpoint is {{ . | quote }}: give http://HOST:PORT of the collector's receiver for OTLP over gRPC, mostly 4317, without a path.
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.validate.gateway" -}}
{{- $gateway := .Values.gateway }}
{{- range $name := list "listen" "health_listen" "metrics_listen" "processes" "tls" "models" "drain_delay" "drain_grace" "otlp_endpoint" "trace_ratio" "redis_url" "key_pepper" "link_token" "master_key" }}
{{- if hasKey $gateway.settings $name }}
gateway.settings.{{ $name }} is set by the chart: remove it there, and use the value that the comments of values.yaml name for it.
{{- end }}
{{- end }}
{{- $drain := include "headrace.gatewayDrain" . | fromYaml }}
{{- if lt (int64 $drain.total) (int64 $drain.sum) }}
gateway.terminationGracePeriodSeconds is {{ int64 $drain.total }}, but the drain takes {{ int64 $drain.sum }} s: shorten gateway.drain, or set it to 0 for the sum.
{{- end }}
{{- if and (lt (include "headrace.gatewayPods" . | int) 2) (lt (int $gateway.processes) 2) }}
One gateway pod with one process has nobody to take over its turns: set gateway.replicas or gateway.processes to 2 or more.
{{- end }}
{{- $service := $gateway.service }}
{{- if and (ne $service.type "ClusterIP") (not $gateway.tls.enabled) (not $service.allowPlaintext) }}
gateway.service.type is {{ $service.type }} without TLS: keys and prompts would leave the cluster in the clear; set gateway.tls.enabled, or gateway.service.allowPlaintext where a load balancer ends TLS.
{{- end }}
{{- if and (ne $service.type "ClusterIP") .Values.networkPolicy.enabled }}
{{- if not $service.loadBalancerSourceRanges }}
gateway.service.loadBalancerSourceRanges is empty, so the network policies let nobody in from outside: list the addresses of your callers.
{{- end }}
{{- if ne $service.externalTrafficPolicy "Local" }}
gateway.service.type is {{ $service.type }}, where nodes may put their own address in place of the callers', which the network policies then drop: set gateway.service.externalTrafficPolicy to Local.
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.validate.scaling" -}}
{{- $scaling := .Values.gateway.autoscaling }}
{{- if and $scaling.enabled $scaling.keda.enabled }}
gateway.autoscaling.enabled and gateway.autoscaling.keda.enabled are two autoscalers of one Deployment, which would fight: turn one of them off.
{{- end }}
{{- if and (or $scaling.enabled $scaling.keda.enabled) (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
gateway.autoscaling.minReplicas is {{ $scaling.minReplicas }} and maxReplicas {{ $scaling.maxReplicas }}: raise maxReplicas.
{{- end }}
{{- end -}}

{{- define "headrace.validate.tls" -}}
{{- $tls := .Values.gateway.tls }}
{{- if and $tls.enabled $tls.existingSecret $tls.certManager.enabled }}
gateway.tls has two sources: keep either existingSecret or certManager.enabled.
{{- end }}
{{- if and $tls.enabled (not $tls.existingSecret) (not $tls.certManager.enabled) }}
gateway.tls.enabled has no source: name a Secret in gateway.tls.existingSecret, or set gateway.tls.certManager.enabled.
{{- end }}
{{- if and $tls.enabled $tls.certManager.enabled (not $tls.certManager.issuerRef.name) }}
gateway.tls.certManager.issuerRef.name is empty: name the Issuer or ClusterIssuer that signs the certificate.
{{- end }}
{{- if and $tls.clientCa.enabled (not $tls.enabled) }}
gateway.tls.clientCa.enabled needs gateway.tls.enabled: without TLS no client shows a certificate.
{{- end }}
{{- if and $tls.enabled $tls.clientCa.enabled .Values.tests.enabled (not .Values.tests.clientCertificateSecret) }}
gateway.tls.clientCa.enabled shuts out the pod of `helm test`: name a Secret with tls.crt and tls.key for it in tests.clientCertificateSecret, or set tests.enabled to false.
{{- end }}
{{- end -}}

{{- define "headrace.validate.routes" -}}
{{- $routes := .Values.routes }}
{{- range $kind, $route := $routes }}
{{- if and $route.enabled (not $route.parentRefs) }}
routes.{{ $kind }}.parentRefs is empty: name the Gateway that the route belongs to.
{{- end }}
{{- end }}
{{- $tls := .Values.gateway.tls }}
{{- if and (or $routes.grpc.enabled $routes.http.enabled) $tls.enabled $tls.caKey (not $tls.backend.caConfigMap) }}
gateway.tls.backend.caConfigMap is empty, so the Gateway of the route cannot trust the certificate: name a ConfigMap with its CA in ca.crt, or set gateway.tls.caKey to "" where the CA is a public one.
{{- end }}
{{- if and $routes.grpc.enabled $routes.http.enabled }}
routes.grpc and routes.http would serve the same calls: keep one of them.
{{- end }}
{{- end -}}
