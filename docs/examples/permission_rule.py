from realtime import default_rule


async def rule(user, topic, action):
    if topic.startswith("team."):
        return await user.groups.filter(name=topic.removeprefix("team.")).aexists()
    return await default_rule(user, topic, action)
