// A Todo API in the manner of the Go service that million-rps replaces, to compare with: gin routes, every read asks Redis
// for the ready list and keeps nothing itself, every write goes to Kafka without waiting for it and is answered with 202.
// Only what the bench measures is here: no fill from a database, no worker.
//
//	ADDRESS        where to listen, such as 127.0.0.1:8080
//	REDIS_ADDRESS  the Redis that holds todos:list:LIMIT and todos:list:all
//	KAFKA_BROKERS  host:port, several separated by commas; without it writes are answered with 503
//	KAFKA_TODO_TOPIC  the topic of the commands; todo-commands when not set
//	JWT_SECRET     the key of the bearer tokens (HS256); without it everybody writes as "anonymous"
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
)

// command is what goes onto the log.
type command struct {
	Action      string    `json:"action"`
	ID          string    `json:"id"`
	Title       string    `json:"title"`
	Description string    `json:"description"`
	UserID      string    `json:"user_id"`
	RequestedAt time.Time `json:"requested_at"`
}

type todoBody struct {
	Title       string `json:"title" binding:"required"`
	Description string `json:"description"`
}

type server struct {
	redis     *redis.Client
	kafka     *kafka.Writer
	jwtSecret []byte
}

func main() {
	s := &server{
		redis:     redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_ADDRESS"), PoolSize: 500}),
		kafka:     kafkaWriter(),
		jwtSecret: []byte(os.Getenv("JWT_SECRET")),
	}
	router := gin.New()
	router.Use(gin.Recovery())
	router.GET("/todos", s.list)
	router.POST("/todos", s.create)
	log.Fatal(router.Run(os.Getenv("ADDRESS")))
}

func kafkaWriter() *kafka.Writer {
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		return nil
	}
	topic := os.Getenv("KAFKA_TODO_TOPIC")
	if topic == "" {
		topic = "todo-commands"
	}
	addresses := kafka.TCP(strings.Split(brokers, ",")...)
	createTopic(addresses, topic)
	return &kafka.Writer{
		Addr:         addresses,
		Topic:        topic,
		Balancer:     &kafka.Hash{},
		BatchTimeout: 10 * time.Millisecond,
		RequiredAcks: kafka.RequireOne,
		Async:        true,
	}
}

// createTopic makes the topic where it is missing: brokers need not do so by themselves.
func createTopic(addresses net.Addr, topic string) {
	client := &kafka.Client{Addr: addresses, Timeout: 30 * time.Second}
	config := kafka.TopicConfig{Topic: topic, NumPartitions: 16, ReplicationFactor: 1}
	answer, err := client.CreateTopics(context.Background(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})
	if err == nil {
		err = answer.Errors[topic]
	}
	if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		log.Fatalf("topic %s: %v", topic, err)
	}
}

// list answers with the bytes that Redis holds for this limit.
func (s *server) list(c *gin.Context) {
	limit := c.DefaultQuery("limit", "all")
	body, err := s.redis.Get(c.Request.Context(), "todos:list:"+limit).Bytes()
	if err != nil {
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": err.Error()})
		return
	}
	// Without it net/http would send chunks, which cost more.
	c.Header("Content-Length", strconv.Itoa(len(body)))
	c.Data(http.StatusOK, "application/json", body)
}

// create does not wait: what it answers says nothing about what Kafka has.
func (s *server) create(c *gin.Context) {
	if s.kafka == nil {
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": "KAFKA_BROKERS is not set"})
		return
	}
	user, err := s.user(c.GetHeader("Authorization"))
	if err != nil {
		c.JSON(http.StatusUnauthorized, gin.H{"error": err.Error()})
		return
	}
	var body todoBody
	if err := c.ShouldBindJSON(&body); err != nil {
		c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
		return
	}
	id := uuid.NewString()
	value, err := json.Marshal(command{"create", id, body.Title, body.Description, user, time.Now().UTC()})
	if err != nil {
		c.JSON(http.StatusInternalServerError, gin.H{"error": err.Error()})
		return
	}
	if err := s.kafka.WriteMessages(c.Request.Context(), kafka.Message{Key: []byte(id), Value: value}); err != nil {
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": err.Error()})
		return
	}
	c.JSON(http.StatusAccepted, gin.H{"id": id, "message": "Todo creation queued"})
}

// user is the subject of the bearer token.
func (s *server) user(authorization string) (string, error) {
	if len(s.jwtSecret) == 0 {
		return "anonymous", nil
	}
	text, isBearer := strings.CutPrefix(authorization, "Bearer ")
	if !isBearer {
		return "", errors.New("a bearer token is required")
	}
	key := func(*jwt.Token) (any, error) { return s.jwtSecret, nil }
	token, err := jwt.Parse(text, key, jwt.WithValidMethods([]string{"HS256"}))
	if err != nil {
		return "", err
	}
	return token.Claims.GetSubject()
}
