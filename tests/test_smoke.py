import httpx


def test_alive(server, token):
    assert httpx.get(f"{server.url}/healthz").text == "ok\n"
    headers = {"Authorization": f"Bearer {token('alice')}"}
    answer = httpx.post(f"{server.url}/topics/room.a/events", json={"a": 1}, headers=headers)
    assert answer.status_code == 201
