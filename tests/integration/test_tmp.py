import time
def test_api(apiserver, namespace):
    t=time.time()
    apiserver.kubectl("create","configmap","a","-n",namespace)
    assert len(apiserver.audit_events(t, resource="configmaps", writes=True))==1
def test_fail(apiserver, namespace):
    apiserver.kubectl("create","configmap","a","-n",namespace)
    assert 0
