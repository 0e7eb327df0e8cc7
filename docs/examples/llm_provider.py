from realtime.llm.provider import Provider, Stop


class Shouting(Provider):
    name = "shouting"

    async def stream(self, prompt):
        for word in prompt.split():
            yield f"{word.upper()} "
        yield Stop("end")
