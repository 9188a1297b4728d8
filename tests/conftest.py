from hypothesis import settings

# Times are not judged: the machine has other work.
settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
