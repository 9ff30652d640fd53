module nodule.dev/e2e/control-plane/etcd

go 1.26.0
