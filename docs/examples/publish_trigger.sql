CREATE FUNCTION order_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM realtime_publish(
        'order.' || NEW.id, jsonb_build_object('status', NEW.status), 'changed'
    );
    RETURN NULL;
END $$;

CREATE TRIGGER order_changed AFTER INSERT OR UPDATE OF status ON shop_order
    FOR EACH ROW EXECUTE FUNCTION order_changed();
